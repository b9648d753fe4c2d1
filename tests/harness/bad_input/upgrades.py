"""The rows of Upgrades: bad fields, artifacts that are not what they claim to be, and calls in the wrong state."""

import numpy as np

from harness.bad_input.artifacts import (
    ANCHORS,
    PREDICTOR,
    PROJECTION,
    SAMPLE,
    anchors_of,
    named,
    predictor,
    projection,
)
from harness.bad_input.case import EXISTS, NOT_FOUND, PRECONDITION, Bad, Value, bad
from harness.bad_input.good import DIMENSION, OTHER, UpgradeAs, floats, integer, model
from harness.bad_input.shared import (
    INF,
    LOGGED,
    MIB,
    MOST,
    NAN,
    acknowledgement_and_request,
    batch_of_ids,
    collection_name,
    doc_id,
    model_fields,
    vector_block,
    vector_values,
)
from kintsugi.metrics import Metric
from kintsugi.v1 import types_pb2, upgrades_pb2

PLAN, PUT, NEXT = "Upgrades.Plan", "Upgrades.PutVectors", "Upgrades.NextDocuments"
MAP, BOTH = upgrades_pb2.UPGRADE_STRATEGY_GALLERY_MAP, upgrades_pb2.UPGRADE_STRATEGY_BOTH_VECTORS
RAW = upgrades_pb2.SCORE_CALIBRATION_RAW
NAMED = named(PROJECTION)
MAPPED = (("plan.strategy", MAP), ("plan.gallery_map", NAMED))

# What each command must not be given to, and what it answers to that.
_WRONG_STATES: dict[str, dict[UpgradeAs, str]] = {
    "Start": {
        UpgradeAs.GIVEN_UP: "is rolled-back",
        UpgradeAs.ROLLED_BACK: "is rolled-back",
    },
    "Get": {},
    "Pause": {
        UpgradeAs.PLANNED: "is planned: it hands out no documents",
        UpgradeAs.FINISHED: "is finished: it hands out no documents",
    },
    "Resume": {
        UpgradeAs.PLANNED: "is planned: it hands out no documents",
        UpgradeAs.FINISHED: "is finished: it hands out no documents",
    },
    "CutOver": {
        UpgradeAs.PLANNED: "is planned: cut-over is not possible",
        UpgradeAs.BACKFILLING: "0 of 8 documents of backfilling have a vector of n, must be at least 0.99",
        UpgradeAs.PAUSED: "0 of 8 documents of paused have a vector of n, must be at least 0.99",
        UpgradeAs.GIVEN_UP: "is rolled-back: cut-over is not possible",
        UpgradeAs.ROLLED_BACK: "is rolled-back: cut-over is not possible",
    },
    "Rollback": {
        UpgradeAs.FINISHED: "is finished: rollback-asked is not possible",
    },
    "Finish": {
        UpgradeAs.PLANNED: "is planned: finish-asked is not possible",
        UpgradeAs.BACKFILLING: "is backfilling: finish-asked is not possible",
        UpgradeAs.GIVEN_UP: "is rolled-back: finish-asked is not possible",
        UpgradeAs.ROLLED_BACK: "is rolled-back: finish-asked is not possible",
    },
    "NextDocuments": {
        UpgradeAs.PLANNED: "is planned, which hands out no documents",
        UpgradeAs.PAUSED: "is paused, resume it first",
        UpgradeAs.FINISHED: "is finished, which hands out no documents",
    },
}  # fmt: skip


def rows() -> list[Bad]:
    return [*_commands(), *_put_artifact(), *_plan(), *_next_documents(), *_put_vectors()]


def _commands() -> list[Bad]:
    """Every call about an upgrade that must be there already."""
    path = "collection"
    found = []
    for method, wrong in _WRONG_STATES.items():
        rpc = f"Upgrades.{method}"
        found += [
            *collection_name(rpc, path),
            bad(rpc, path, "without an upgrade", OTHER, path, "collection other has no upgrade", code=NOT_FOUND),
            *(bad(rpc, path, state, state.value, "", says, code=PRECONDITION) for state, says in wrong.items()),
        ]
    return found


def _put_artifact() -> list[Bad]:
    rpc, name, size, most = "Upgrades.PutArtifact", "digest", "total_bytes", 96 * MIB
    length = len(PROJECTION)
    return [
        *(bad(rpc, name, what, value, name, f"is '{value}'", "64 hexadecimal digits")
          for what, value in (("not set", ""), ("short", "0" * 63), ("in upper case", "A" * 64), ("a path", "../x"))),
        bad(rpc, name, "of other bytes", "0" * 64, name, "is 000", NAMED),
        bad(rpc, size, "not set", 0, size, "is 0", f"1 to {most}"),
        bad(rpc, size, "too many", most + 1, size, str(most + 1), f"1 to {most}"),
        bad(rpc, size, "huge", 2**64 - 1, size, str(2**64 - 1), f"1 to {most}"),
        bad(rpc, size, "more than come", length + 1, size, f"is {length + 1}", f"must be {length}"),
        bad(rpc, size, "fewer than come", length - 1, "data", f"makes {length} bytes", f"must make {length - 1}"),
        bad(rpc, "data", "none", b"", "data", "has 0 bytes", f"1 to {MIB}"),
        bad(rpc, "data", "too many", bytes(MIB + 1), "data", f"has {MIB + 1} bytes", f"1 to {MIB}",
            also=((size, MIB + 1),)),
        bad(rpc, "data", "others", PROJECTION[:-1] + b"\x01", name, f"is {NAMED}", "that of the bytes that came"),
    ]  # fmt: skip


# --- The plan ---------------------------------------------------------------------------------------------------------


def _plan() -> list[Bad]:
    name, size, whole = "plan.new_model.name", "plan.new_model.dimension", "plan.new_model"
    other = model("n")
    other.pooling = "cls"
    return [
        *collection_name(PLAN, "collection"),
        bad(PLAN, "collection", "under way", UpgradeAs.BACKFILLING.value, "collection", "from m to n is backfilling",
            "one at a time", code=EXISTS),
        bad(PLAN, "plan", "not set", None, name, "''", "1 to 64"),
        *model_fields(PLAN, whole),
        bad(PLAN, name, "in use", "m", name, "'m'", "in use"),
        bad(PLAN, name, "gone", "m", name, "'m'", "gone", also=(("collection", UpgradeAs.FINISHED.value),)),
        bad(PLAN, whole, "not set", None, name, "''", "1 to 64"),
        bad(PLAN, whole, "another of its name", other, whole, "another model named 'n'", "earlier upgrade",
            also=(("collection", UpgradeAs.ROLLED_BACK.value),)),
        bad(PLAN, size, "another", DIMENSION + 1, "plan.anchors", "new vectors of dimension 4", "5, that of n"),
        *_choices(),
        *_bounds(),
        *_report(),
        *_projections(),
        *_other_artifacts(),
    ]  # fmt: skip


def _choices() -> list[Bad]:
    strategy, calibration = "plan.strategy", "plan.calibration"
    return [
        *(bad(PLAN, path, what, value, path, f"is {value}", "must be one of 1 (")
          for path in (strategy, calibration) for what, value in (("not set", 0), ("unknown", 9))),
        bad(PLAN, calibration, "raw scores of two spaces", RAW, calibration, "is RAW", "with query-bridge"),
        bad(PLAN, strategy, "without its map", MAP, "plan.gallery_map", "is ''", "must be given with gallery-map"),
        bad(PLAN, strategy, "with a bridge", BOTH, "plan.bridge", NAMED, "be empty with both-vectors"),
    ]  # fmt: skip


def _bounds() -> list[Bad]:
    return [
        bad(PLAN, path, f"{value}", value, path, f"is {value:g}", "above 0 and at most 1")
        for path in ("plan.min_migrated", "plan.min_recall")
        for value in (-0.5, 1.5, NAN, INF, -INF)
    ]


def _report() -> list[Bad]:
    path, is_json = "plan.report", "must be a JSON object"
    deep = b"[" * 100_000 + b"]" * 100_000
    return [
        bad(PLAN, path, "empty", b"", path, "0 bytes", f"1 to {MIB}"),
        bad(PLAN, path, "too long", b" " * (MIB + 1), path, str(MIB + 1), f"1 to {MIB}"),
        *(bad(PLAN, path, what, value, path, "is no JSON", is_json)
          for what, value in (("not json", b"{"), ("not utf-8", b'{"\xff": 1}'), ("too deep", deep))),
        bad(PLAN, path, "an array", b"[]", path, "no object", is_json),
        bad(PLAN, "plan.refused", "true", True, "plan.refused", "refuses the upgrade from m to n", "it is worse",
            code=PRECONDITION),
    ]  # fmt: skip


# --- Its artifacts ----------------------------------------------------------------------------------------------------


def _projections() -> list[Bad]:
    bridge, path, reverse = "plan.bridge", "plan.gallery_map", "plan.reverse"
    return [
        *_projection(bridge),
        *_projection(path, MAPPED),
        *_projection(reverse),
        bad(PLAN, bridge, "left out", "", bridge, "is ''", "must be given with query-bridge"),
        bad(PLAN, reverse, "left out", "", reverse, "is ''", "must be given with query-bridge"),
        bad(PLAN, path, "unwanted", NAMED, path, NAMED, "must be empty with query-bridge"),
    ]


def _projection(path: str, given: tuple[tuple[str, Value], ...] = ()) -> list[Bad]:
    """The file of a projection between two spaces of 4 dimensions under cosine; `given` is what makes it wanted."""
    wrong = {
        "garbage": (b"garbage", "is no kintsugi-projection"),
        "anchors": (ANCHORS, "'kintsugi-anchors' version 1, must be 'kintsugi-projection'"),
        "cut off": (PROJECTION[:-1], "does not match its checksum"),
        "altered": (PROJECTION[:-1] + b"\x01", "does not match its checksum"),
        "nan": (projection(scale=NAN), "weights has elements that are not finite"),
        "inf": (projection(scale=INF), "weights has elements that are not finite"),
        "of another metric": (projection(Metric.L2), "is for l2, must be for cosine"),
        "from another space": (projection(source=5), "maps dimension 5 to 4, must map 4 to 4"),
        "to another space": (projection(target=5), "maps dimension 4 to 5, must map 4 to 4"),
        "to one point": (projection(scale=0.0), "must find more than"),
    }
    return [
        *(bad(PLAN, path, what, named(value), path, says, also=_others(path, given))
          for what, (value, says) in wrong.items()),
        *_digests(path, _others(path, given)),
    ]  # fmt: skip


def _digests(path: str, also: tuple[tuple[str, Value], ...] = ()) -> list[Bad]:
    """What names no artifact, or one that nobody has uploaded."""
    malformed = {"short": "0" * 63, "in upper case": "A" * 64, "a path": "../registry", "long": "0" * 65}
    return [
        *(bad(PLAN, path, what, value, path, value, "64 hexadecimal digits", also=also)
          for what, value in malformed.items()),
        bad(PLAN, path, "of nothing", "0" * 64, path, "names artifact 000", "must be uploaded", code=PRECONDITION,
            also=also),
    ]  # fmt: skip


def _others(path: str, given: tuple[tuple[str, Value], ...]) -> tuple[tuple[str, Value], ...]:
    return tuple((at, value) for at, value in given if at != path)


def _other_artifacts() -> list[Bad]:
    path, unsure = "plan.anchors", "plan.uncertainty"
    of_five = np.ones((len(SAMPLE), 5), np.float32)
    bad_value = SAMPLE.copy()
    bad_value[3, 2] = NAN
    wrong = {
        "garbage": (b"garbage", "is no kintsugi-anchors"),
        "a projection": (PROJECTION, "'kintsugi-projection' version 1, must be 'kintsugi-anchors'"),
        "cut off": (ANCHORS[:-1], "does not match its checksum"),
        "too few": (anchors_of(SAMPLE[:49], SAMPLE[:49]), "49 of the old model and 49 of the new"),
        "too many": (anchors_of(np.ones((2001, 4), np.float32), np.ones((2001, 4), np.float32)), "50 to 2000"),
        "unequally many": (anchors_of(SAMPLE[:60], SAMPLE), "60 of the old model and 120 of the new"),
        "nan": (anchors_of(bad_value, SAMPLE), "old has elements that are not finite"),
        "of another old model": (anchors_of(of_five, SAMPLE), "old vectors of dimension 5, must have 4, that of m"),
        "of another new model": (anchors_of(SAMPLE, of_five), "new vectors of dimension 5, must have 4, that of n"),
    }
    return [
        bad(PLAN, path, "left out", "", path, "is ''", "must be given"),
        *(bad(PLAN, path, what, named(value), path, says) for what, (value, says) in wrong.items()),
        bad(PLAN, path, "shuffled", named(anchors_of(SAMPLE, np.random.default_rng(1).permutation(SAMPLE))),
            "plan.bridge", "of the anchors among their 10 nearest", "which chance may find"),
        *_digests(path),
        bad(PLAN, unsure, "garbage", named(b"garbage"), unsure, "is no kintsugi-uncertainty"),
        bad(PLAN, unsure, "cut off", named(PREDICTOR[:-1]), unsure, "does not match its checksum"),
        bad(PLAN, unsure, "of another model", named(predictor(5)), unsure, "is for dimension 5", "4, that of m"),
        *_digests(unsure),
    ]  # fmt: skip


# --- Re-embedding -----------------------------------------------------------------------------------------------------


def _next_documents() -> list[Bad]:
    lease, first = "lease_s", "first"
    integers, texts, kinds = (f"{first}.{part}" for part in ("integers", "texts", "kinds"))
    alone = ((kinds, b""),)
    return [
        bad(NEXT, "limit", "too many", 1001, "limit", "1001", "1 to 1000"),
        bad(NEXT, "limit", "huge", MOST, "limit", str(MOST), "1 to 1000"),
        *(bad(NEXT, lease, f"{value}", value, lease, f"is {value:g}", "1 to 3600")
          for value in (0.5, 3601.0, -1.0, NAN, INF, -INF)),
        bad(NEXT, first, "too many", types_pb2.IdColumn(integers=bytes(8 * 1001), kinds=bytes(1001)), first, "1001 ids",
            "at most 1000"),
        bad(NEXT, integers, "a byte short", bytes(7), integers, "7 bytes", "multiple of 8"),
        bad(NEXT, texts, "empty", [""], f"{texts}[0]", "0 bytes", "1 to 512"),
        bad(NEXT, texts, "too long", ["x" * 513], f"{texts}[0]", "513", "1 to 512"),
        bad(NEXT, texts, "too long in bytes", ["é" * 257], f"{texts}[0]", "514", "1 to 512"),
        bad(NEXT, kinds, "left out", b"", kinds, "is empty for 1 integers and 1 texts", "one byte per id", also=alone),
        bad(NEXT, kinds, "too few", b"\x00", kinds, "1 bytes 0 and 0 bytes 1 of 1", "1 integers with 0 and 1 texts"),
        bad(NEXT, kinds, "unknown", b"\x00\x02", kinds, "1 bytes 0 and 0 bytes 1 of 2", "1 integers with 0"),
    ]  # fmt: skip


def _put_vectors() -> list[Bad]:
    versions, count, level = "versions", "block.count", "acknowledgement"
    many = [integer(number) for number in range(1000)]
    return [
        *collection_name(PUT, "collection"),
        bad(PUT, "model", "empty", "", "model", "is empty", "one of the models m, n"),
        bad(PUT, "model", "unknown", "nobody", "model", "'nobody'", "m, n", code=PRECONDITION),
        *(bad(PUT, "collection", f"{state}, which does not know it", state.value, "model", "'n'", "the models m",
              code=PRECONDITION) for state in (UpgradeAs.PLANNED, UpgradeAs.GIVEN_UP)),
        bad(PUT, "collection", "rolled back", UpgradeAs.ROLLED_BACK.value, "model", "'n', which is retired", "model m",
            code=PRECONDITION),
        bad(PUT, "model", "given up", "m", "model", "'m', which is retired", "model n", code=PRECONDITION,
            also=(("collection", UpgradeAs.FINISHED.value),)),
        *batch_of_ids(PUT, "ids"),
        *doc_id(PUT, "ids[1]", twin="ids[0]"),
        bad(PUT, "ids", "more than versions", many, versions, "2 entries", "must have 1000, one per id"),
        bad(PUT, "block.data", "more than a request may hold", bytes(17 * MIB), "ids", "178", f"at most {16 * MIB}"),
        bad(PUT, versions, "none", [], versions, "0 entries", "must have 2, one per id"),
        bad(PUT, versions, "too few", [1], versions, "1 entries", "must have 2, one per id"),
        bad(PUT, versions, "too many", [1, 1, 1], versions, "3 entries", "must have 2, one per id"),
        bad(PUT, versions, "zero", [1, 0], f"{versions}[1]", "is 0", "at least 1"),
        *vector_block(PUT, "block", 2),
        *vector_values(PUT, "block.data", "block[1]", rows=2),
        bad(PUT, count, "fewer than ids", 1, count, "is 1", "must be 2", also=(("block.data", floats(1, 2, 3, 4)),)),
        bad(PUT, count, "more than ids", 3, count, "is 3", "1 to 2", also=(("block.data", floats(1, 2, 3, 4) * 3),)),
        bad(PUT, level, "logged", LOGGED, level, "is LOGGED", "DURABLE or above"),
        *acknowledgement_and_request(PUT),
    ]  # fmt: skip


_FLAG = "both values of a flag are good"
CANNOT_BE_BAD = {
    f"{PLAN} force": _FLAG,
    f"{PLAN} plan.new_model.normalised": _FLAG,
}
