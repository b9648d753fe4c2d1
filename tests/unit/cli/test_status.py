"""The status judges, draws and tells in JSON what a coordinator said."""

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness.statuses import member, replica, shard, silent, status
from jsonschema import Draft202012Validator
from rich.console import Console

from kintsugi.cli.health import Health, judge
from kintsugi.cli.status import looks
from kintsugi.cli.status_json import document
from kintsugi.cli.status_view import size, view
from kintsugi.errors import Unavailable

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCHEMA = json.loads((DOCS / "status-1.schema.json").read_text())
FOREIGN = status(registry="foreign", message="redis holds cluster x")
WAITING = status(shard(silent("s0"), replica("s1"), log_state="recovering", message="recovery waits for s0", log_seq=0))
NEVER_SEEN = status(cluster_id="", incarnation=0, revision=0, members=(), collections=(), registry="missing")


@pytest.mark.parametrize(
    ("found", "health", "reason"),
    [
        (status(), Health.OK, None),
        (status(members=(member("c0", "coordinator", alive=False, lifecycle="", machine=None),)), Health.OK, None),
        (status(members=(member("s0", alive=False, lifecycle=""),)), Health.DEGRADED, "s0:1 is gone"),
        (status(members=(member("s0", lifecycle=""),)), Health.DEGRADED, "holds a lease and does not answer"),
        (status(shard(replica("s0"), silent("s1"))), Health.DEGRADED, "the replica on s1 does not answer"),
        (status(shard(replica("s0"), replica("s1", state="joining"))), Health.DEGRADED, "s1 is joining and serving"),
        (status(shard(replica("s0", phase="failed", message="no room"))), Health.FAILING, "no replica in sync answers"),
        (status(shard(replica("s0"), log_seq=60_000)), Health.DEGRADED, "59,900 records behind"),
        (status(shard(silent("s0"))), Health.FAILING, "no replica in sync answers"),
        (WAITING, Health.FAILING, "its log is recovering, writes are refused: recovery waits for s0"),
        (FOREIGN, Health.FAILING, "the registry is foreign, writes are refused: redis holds cluster x"),
    ],
)
def test_health_is_what_clients_feel(found, health, reason):
    """Failing is what is refused, degraded what the next fault may cost; the reason is told, the worst first."""
    judged, problems = judge(found)
    assert judged is health
    assert bool(problems) == (health is not Health.OK)
    if reason:
        assert any(reason in problem.message for problem in problems)
        assert problems[0].health is health


def closed(schema):
    """The schema that also refuses what it does not name: for us, not for readers."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        return {**made, "additionalProperties": False} if "properties" in schema else made
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("found", [status(), FOREIGN, WAITING, NEVER_SEEN, status(shard(silent("s0")))])
def test_json_follows_its_schema_and_holds_nothing_else(found):
    """What programs read is what was promised, also when parts do not answer."""
    told = json.loads(json.dumps(document(found, datetime.now(UTC))))
    Draft202012Validator.check_schema(SCHEMA)
    validator = Draft202012Validator(closed(SCHEMA), format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert [error.message for error in validator.iter_errors(told)] == []


def paths(value, prefix=""):
    """Every field of a document, as the documentation writes it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            deeper = list(paths(inner, f"{prefix}.{key}" if prefix else key))
            yield from deeper or [f"{prefix}.{key}" if prefix else key]
            if key == "machine":
                yield f"{prefix}.{key}"
    elif isinstance(value, list):
        for inner in value[:1]:
            yield from paths(inner, f"{prefix}[]")


def test_every_field_is_documented():
    """A field that nobody can look up is not stable."""
    text = (DOCS / "status-json.md").read_text()
    problematic = status(members=(member("s0", lifecycle=""), member("s1")))
    fields = set(paths(document(problematic, datetime.now(UTC))))
    named = set(re.findall(r"`([a-z_\[\].]+)`", text))
    assert sorted(fields - named) == []
    assert sorted(name for name in named if "[]." in name and name not in fields) == []


def drawn(found):
    out = io.StringIO()
    Console(file=out, width=240, highlight=False).print(view(found))
    return out.getvalue()


def test_tables_show_what_people_look_for():
    """Health, members, positions, lag and index versions are there at a glance."""
    text = drawn(status(shard(replica("s0", durable_seq=93), silent("s1"))))
    for shown in ("cluster c: degraded", "books/0: the replica on s1 does not answer", "s0:1", "128 MiB of 4.0 GiB",
                  "open, epoch 1, at 100", "v1 i8 serving (90, recall 0.988)", "93", "7", "no answer"):  # fmt: skip
        assert shown in text


def test_words_of_others_are_no_markup():
    """A message with brackets is shown as it is."""
    assert "[red]x[/blue]" in drawn(status(registry="missing", message="[red]x[/blue]"))


def test_sizes_are_for_people():
    """Two digits say enough."""
    assert [size(n) for n in (0, 1023, 1536, 20 * 2**20, 2**50)] == ["0 B", "1,023 B", "1.5 KiB", "20 MiB", "1.0 PiB"]


def test_watching_goes_on_after_trouble_until_it_is_interrupted():
    """A cluster that is away for a moment is looked for again; Ctrl-C ends it."""
    answers = iter([status(), Unavailable("away"), FOREIGN, KeyboardInterrupt()])
    slept = []

    def ask():
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    seen = [(found.registry if found else None, message) for found, message in looks(ask, 5.0, slept.append)]
    assert seen == [("ok", ""), (None, "away"), ("foreign", "")]
    assert slept == [5.0, 5.0, 5.0]
