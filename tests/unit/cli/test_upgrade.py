"""The commands of upgrades against a coordinator in this process: what they ask for, show and end with."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from kintsugi import columns
from kintsugi.cli.main import cli, run
from kintsugi.projections import artifact
from kintsugi.v1 import collections_pb2, collections_pb2_grpc, types_pb2, upgrades_pb2, upgrades_pb2_grpc

OLD = types_pb2.Model(name="old", dimension=6)
NEW = types_pb2.Model(name="new", dimension=4, document_prefix="doc: ")


def upgrade_message(state=upgrades_pb2.UPGRADE_STATE_BACKFILLING, **more):
    return upgrades_pb2.Upgrade(
        number=1, old_model="old", new_model=NEW, state=state,
        strategy=upgrades_pb2.UPGRADE_STRATEGY_QUERY_BRIDGE, calibration=upgrades_pb2.SCORE_CALIBRATION_QUANTILES,
        min_migrated=0.99, min_recall=0.95, query_vectors=["new"], **more,
    )  # fmt: skip


class Coordinator(upgrades_pb2_grpc.UpgradesServicer, collections_pb2_grpc.CollectionsServicer):
    """Answers from what tests put there, and notes what it was asked."""

    def __init__(self):
        self.asked = []
        self.uploaded = {}
        self.state = upgrades_pb2.UPGRADE_STATE_BACKFILLING
        self.refusal = None
        self.waiting = {}
        self.vectors = {}

    def _moved(self, request, context, response, state):
        self.asked.append(request)
        if self.refusal is not None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
        return response(upgrade=upgrade_message(state))

    def Get(self, request, _context):
        if isinstance(request, collections_pb2.GetCollectionRequest):
            spec = collections_pb2.CollectionSpec(
                name=request.name, shards=1, replicas=1, metric=types_pb2.METRIC_COSINE, models=[OLD]
            )
            return collections_pb2.GetCollectionResponse(
                collection=collections_pb2.Collection(spec=spec, serving_model="old")
            )
        self.asked.append(request)
        progress = upgrades_pb2.UpgradeShardProgress(
            shard=0, member="s-1", documents=200, with_old_vector=200, with_new_vector=50, hits=10, native_hits=4,
            stale_vectors=3, message="re-embedding", calibration_error=0.4375,
            estimated_recall=0.875,
        )  # fmt: skip
        return upgrades_pb2.GetUpgradeResponse(
            upgrade=upgrade_message(self.state, waits_for="documents"), shards=[progress], report=b'{"rows": []}'
        )

    def PutArtifact(self, request_iterator, _context):
        first, *others = request_iterator
        self.uploaded[first.digest] = b"".join(one.data for one in (first, *others))
        return upgrades_pb2.PutArtifactResponse(digest=first.digest)

    def Plan(self, request, context):
        state = upgrades_pb2.UPGRADE_STATE_PLANNED
        return self._moved(request, context, upgrades_pb2.PlanUpgradeResponse, state)

    def Start(self, request, context):
        state = upgrades_pb2.UPGRADE_STATE_SERVING_BOTH
        return self._moved(request, context, upgrades_pb2.StartUpgradeResponse, state)

    def Pause(self, request, context):
        return self._moved(request, context, upgrades_pb2.PauseUpgradeResponse, self.state)

    def Resume(self, request, context):
        return self._moved(request, context, upgrades_pb2.ResumeUpgradeResponse, self.state)

    def CutOver(self, request, context):
        return self._moved(request, context, upgrades_pb2.CutOverResponse, upgrades_pb2.UPGRADE_STATE_CUT_OVER)

    def Rollback(self, request, context):
        state = upgrades_pb2.UPGRADE_STATE_ROLLING_BACK
        return self._moved(request, context, upgrades_pb2.RollbackUpgradeResponse, state)

    def Finish(self, request, context):
        state = upgrades_pb2.UPGRADE_STATE_FINISHING
        return self._moved(request, context, upgrades_pb2.FinishUpgradeResponse, state)

    def NextDocuments(self, request, _context):
        self.asked.append(request)
        wanted = [*columns.unpack_ids(request.first, "first"), *self.waiting]
        ids = [one for one in dict.fromkeys(wanted) if one in self.waiting][: request.limit]
        documents = [
            upgrades_pb2.DocumentToEmbed(id=columns.pack_id(one), version=one, text=self.waiting[one]) for one in ids
        ]
        return upgrades_pb2.NextDocumentsResponse(documents=documents, model="new", remaining=len(self.waiting))

    def PutVectors(self, request, _context):
        ids = [columns.unpack_id(one, "id") for one in request.ids]
        assert list(request.versions) == ids
        block = columns.unpack_vectors(request.block, "block", dimension=4, max_count=1000)
        self.vectors |= dict(zip(ids, block.tolist(), strict=True))
        for one in ids:
            self.waiting.pop(one)
        return upgrades_pb2.PutVectorsResponse(written=len(ids), request_id=request.request_id)


@pytest.fixture
def coordinator():
    made = Coordinator()
    server = grpc.server(ThreadPoolExecutor(4))
    upgrades_pb2_grpc.add_UpgradesServicer_to_server(made, server)
    collections_pb2_grpc.add_CollectionsServicer_to_server(_Collections(made), server)
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(None).wait()


class _Collections(collections_pb2_grpc.CollectionsServicer):
    """Both services have a Get."""

    def __init__(self, coordinator):
        self._coordinator = coordinator

    def Get(self, request, context):
        return self._coordinator.Get(request, context)


@pytest.fixture
def kintsugi(coordinator, capsys):
    """Runs a command of `upgrade` and returns its code, what it said and what it complained of."""

    def call(*arguments):
        code = run(["upgrade", *arguments, "--address", coordinator.address])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize(
    ("command", "state", "request_type"),
    [
        ("start", "serving-both", upgrades_pb2.StartUpgradeRequest),
        ("pause", "backfilling", upgrades_pb2.PauseUpgradeRequest),
        ("resume", "backfilling", upgrades_pb2.ResumeUpgradeRequest),
        ("cut-over", "cut-over", upgrades_pb2.CutOverRequest),
        ("rollback", "rolling-back", upgrades_pb2.RollbackUpgradeRequest),
    ],
)
def test_a_step_is_asked_for_and_its_outcome_told(kintsugi, coordinator, command, state, request_type):
    """Each command is one call, and says where the upgrade stands; --json gives all of it."""
    assert kintsugi(command, "books") == (
        0, f"collection books: the upgrade from old to new is {state}\n", ""
    )  # fmt: skip
    assert coordinator.asked == [request_type(collection="books")]
    code, said, _ = kintsugi(command, "books", "--json")
    assert (code, json.loads(said)["state"]) == (0, state)


def test_what_is_refused_is_told_in_one_line(kintsugi, coordinator):
    """The cluster's reason is the message, the exit code is 1."""
    coordinator.refusal = "only 40% are migrated"
    code, said, complaint = kintsugi("cut-over", "books")
    assert (code, said, complaint) == (1, "", "error: only 40% are migrated\n")


def test_status_shows_progress_by_replica(kintsugi):
    """State, fractions and what each replica has."""
    code, said, _ = kintsugi("status", "books")
    assert code == 0
    for word in (
        "old -> new",
        "backfilling",
        "25.00% of 200",
        "40.00%",
        "s-1",
        "50 (25.0%)",
        "40.0%",
        "0.438",
        "0.875",
        "re-embedding",
    ):
        assert word in said


def test_status_as_json_has_everything(kintsugi):
    """Programs get numbers, and the planner's report as it is."""
    code, said, _ = kintsugi("status", "books", "--json")
    told = json.loads(said)
    assert (code, told["migrated"], told["migrated_by_traffic"]) == (0, 0.25, 0.4)
    assert (told["upgrade"]["state"], told["report"]) == ("backfilling", {"rows": []})
    replica = told["replicas"][0]
    assert (replica["stale_vectors"], replica["calibration_error"], replica["estimated_recall"]) == (3, 0.4375, 0.875)


def test_finishing_asks_first(kintsugi, coordinator):
    """There is no way back: without --yes somebody must say so."""
    words = ["upgrade", "finish", "books", "--address", coordinator.address]
    answered = CliRunner().invoke(cli, words, input="n\n")
    assert answered.exit_code == 1
    assert "give up model old of collection books" in answered.output
    assert not any(isinstance(one, upgrades_pb2.FinishUpgradeRequest) for one in coordinator.asked)
    code, said, _ = kintsugi("finish", "books", "--yes")
    assert (code, said) == (0, "collection books: the upgrade from old to new is finishing\n")


LENGTHS = "import json, sys\nfor line in sys.stdin:\n    if line.strip():\n        print(json.dumps([len(json.loads(line)['text']), 1, 1, 1]), flush=True)\n"


def test_backfill_embeds_everything(kintsugi, coordinator, tmp_path):
    """A command on the machine makes vectors, with the model's prefix before the texts, the wanted documents first."""
    coordinator.waiting = {number: "x" * number for number in range(1, 8)}
    (tmp_path / "embed.py").write_text(LENGTHS)
    (tmp_path / "first").write_text("7\n6\n")
    code, said, _ = kintsugi(
        "backfill",
        "books",
        "--embed",
        f"python3 {tmp_path / 'embed.py'}",
        "--batch",
        "3",
        "--first",
        str(tmp_path / "first"),
    )
    assert (code, said) == (0, "embedded 7 documents of books with new; none lacks a vector\n")
    assert coordinator.vectors[3] == [len("doc: xxx"), 1, 1, 1]
    assert list(coordinator.vectors)[:2] == [7, 6]


def embed_texts(texts):
    return np.ones((len(texts), 4))


def test_backfill_leaves_what_has_no_text(kintsugi, coordinator):
    """A function of texts can do nothing for it: the exit code says so."""
    coordinator.waiting = {1: "x", 2: ""}
    code, said, complaint = kintsugi("backfill", "books", "--embed", f"{__name__}:embed_texts", "--json")
    assert (code, json.loads(said)["written"], json.loads(said)["textless"]) == (1, 1, 1)
    assert "left: 1 documents have no text" in complaint


def test_backfill_refuses_models_that_are_not_there(kintsugi):
    """A misspelt model is told before anything is embedded."""
    code, _, complaint = kintsugi("backfill", "books", "--embed", "true", "--model", "nwe")
    assert code == 1
    assert "model is nwe, must be one of new, old" in complaint


def sample(path, pairs=400, new_dimension=4):
    """Documents whose new vectors follow from the old ones."""
    random = np.random.default_rng(0)
    old = random.standard_normal((pairs, 6)).astype(np.float32)
    turn = random.standard_normal((6, new_dimension)).astype(np.float32)
    np.savez(path, old_documents=old, new_documents=old @ turn)
    return str(path)


def test_plan_measures_and_registers(kintsugi, coordinator, tmp_path):
    """The report is told and written, and all that the upgrade needs is sent."""
    report = tmp_path / "report.json"
    code, said, _ = kintsugi(
        "plan", "books", "--model", "new", "--dimension", "4", "--sample", sample(tmp_path / "pairs.npz"), "--json", str(report),
        "--document-prefix", "doc: ", "--min-migrated", "0.5",
    )  # fmt: skip
    assert code == 0
    assert "full re-embedding" in said
    assert "collection books: the upgrade from old to new is planned" in said
    plan = coordinator.asked[-1].plan
    assert (plan.new_model.name, plan.new_model.dimension, plan.new_model.document_prefix) == ("new", 4, "doc: ")
    assert (plan.min_migrated, plan.refused) == (0.5, False)
    assert plan.report == report.read_bytes()
    named = {plan.bridge, plan.gallery_map, plan.reverse, plan.anchors, plan.uncertainty} - {""}
    assert set(coordinator.uploaded) == named
    assert artifact.unpack(coordinator.uploaded[plan.reverse]).target_dimension == 6


def test_the_plan_is_drawn(kintsugi, tmp_path):
    """The same sample gives the same drawing; another format is told before anything is measured."""
    pytest.importorskip("matplotlib")
    words = [
        "plan",
        "books",
        "--model",
        "new",
        "--dimension",
        "4",
        "--sample",
        sample(tmp_path / "pairs.npz"),
        "--dry-run",
    ]
    for name in ("one.svg", "two.svg"):
        assert kintsugi(*words, "--plot", str(tmp_path / name))[0] == 0
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    code, _, complaint = kintsugi(*words, "--plot", "plan.txt")
    assert (code, "must end in" in complaint) == (1, True)


def test_a_dry_run_registers_nothing(kintsugi, coordinator, tmp_path):
    """Measuring changes nothing in the cluster."""
    path = sample(tmp_path / "pairs.npz")
    code, said, _ = kintsugi("plan", "books", "--model", "new", "--dimension", "4", "--sample", path, "--dry-run")
    assert (code, "full re-embedding" in said, coordinator.asked) == (0, True, [])


def test_a_worse_model_is_refused_unless_forced(kintsugi, coordinator, tmp_path):
    """Judgements that the old model fulfils and the new one does not: nothing is registered, and the exit code is 1."""
    random = np.random.default_rng(0)
    old = random.standard_normal((600, 6)).astype(np.float32)
    np.savez(
        tmp_path / "pairs.npz", old_documents=old, new_documents=random.standard_normal((600, 4)).astype(np.float32),
        old_queries=old[:100], new_queries=random.standard_normal((100, 4)).astype(np.float32),
    )  # fmt: skip
    (tmp_path / "judged.json").write_text(json.dumps([[place] for place in range(100)]))
    words = ["plan", "books", "--model", "new", "--dimension", "4", "--sample", str(tmp_path / "pairs.npz"),
             "--relevance", str(tmp_path / "judged.json")]  # fmt: skip
    code, said, complaint = kintsugi(*words)
    assert (code, coordinator.asked) == (1, [])
    assert "retrieves worse" in said
    assert "nothing is registered" in complaint
    assert kintsugi(*words, "--force")[0] == 0
    assert coordinator.asked[-1].force
    assert coordinator.asked[-1].plan.refused


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"old_documents": np.ones((300, 6))}, "sample.new_documents is not in the file"),
        ({"old_documents": np.ones((300, 5)), "new_documents": np.ones((300, 4))}, "sample.old_documents is 300 x 5"),
        ({"old_documents": np.ones((300, 6)), "new_documents": np.ones((299, 4))}, "299"),
        ({"old_documents": np.full((300, 6), np.nan), "new_documents": np.ones((300, 4))}, "not finite"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(kintsugi, tmp_path, arrays, message):
    """The array at fault is named, before anything is fitted."""
    np.savez(tmp_path / "pairs.npz", **arrays)
    code, _, complaint = kintsugi(
        "plan", "books", "--model", "new", "--dimension", "4", "--sample", str(tmp_path / "pairs.npz")
    )
    assert (code, message in complaint) == (1, True)
