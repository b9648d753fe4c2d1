"""The documents are held to what the code is: links, names, settings, reasons, generated parts, and snippets that run.

A fenced block whose language is followed by `run` is executed, in the order of its document, against the cluster that
the README's `up` block starts.
"""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from coordinator.settings import CoordinatorSettings
from kintsugi import ids
from kintsugi.cli.main import cli
from kintsugi.failpoints import Failpoint
from kintsugi.keys import DEFAULT_NAMESPACE, Keys, ShardKeys
from kintsugi.lifecycle import LifecycleState
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import LogState, ReplicaState, UpgradeState
from kintsugi.registry.watch import RegistryHealth
from kintsugi.settings import describe
from shard.replica import ReplicaPhase
from shard.settings import ShardSettings
from shard.standing import Standing, Way

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("kintsugi", "coordinator", "shard", "protos", "scripts", "tests", "docs", "bench", "deploy", "examples")
README_ADDRESS = "127.0.0.1:7700"
READY_LINE = "Ctrl-C stops it."
BLOCK_TIMEOUT_S = 120

_FENCE = re.compile(r"^```(\w*) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:/[\w.-]+)+")
_REASON = re.compile(r"[A-Z]+(_[A-Z]+)*")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the word after it, and what is inside."""

    document: str
    language: str
    mark: str
    text: str


@cache
def documents() -> dict[str, str]:
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(found)}


def blocks(mark: str) -> list[Block]:
    return [
        Block(name, *found.groups())
        for name, text in documents().items()
        for found in _FENCE.finditer(text)
        if found[2] == mark
    ]


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", text)


def anchor(heading: str) -> str:
    """The anchor that a heading gets where the documents are shown."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {anchor(line.lstrip("#")) for line in prose(text).splitlines() if line.startswith("#")}


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere(name: str) -> None:
    """A link to a file or heading that was renamed is found before a reader finds it."""
    dead = []
    for target in _LINK.findall(prose(documents()[name])):
        if target.startswith(("http://", "https://")):
            continue
        path, _, heading = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists() or (heading and heading not in anchors(file.read_text("utf-8"))):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("name", documents())
def test_sources_are_named_and_used(name: str) -> None:
    """A claim about others has its source, and no source is left over from a claim that is gone."""
    text = prose(documents()[name])
    defined = re.findall(r"^\[([\w-]+)\]: https://", text, re.MULTILINE)
    assert sorted(defined) == sorted(set(re.findall(r"\]\[([\w-]+)\]", text)))


@pytest.mark.parametrize("name", documents())
def test_files_that_documents_name_exist(name: str) -> None:
    """A code map that names files which are gone misleads."""
    named = {file for code in _CODE.findall(prose(documents()[name])) for file in _FILE.findall(code)}
    # Fields of the registry look like files of the package.
    assert sorted(file for file in named if "/UID/" not in file and not (ROOT / file).exists()) == []


@pytest.mark.parametrize("name", documents())
def test_commands_that_documents_name_exist(name: str) -> None:
    """Whoever types a command of the documents gets that command."""
    code = "\n".join(
        [*_CODE.findall(prose(documents()[name])), *(found[3] for found in _FENCE.finditer(documents()[name]))]
    )
    commands = set(re.findall(r"^kintsugi ([a-z]+)", code, re.MULTILINE))
    targets = {
        target
        for line in re.findall(r"^make ([a-z][a-z -]*)", code, re.MULTILINE)
        for target in line.split()
        if target != "-"
    }
    makefile = (ROOT / "Makefile").read_text()
    assert sorted(commands - set(cli.commands)) == []
    assert sorted(target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)) == []


def test_every_setting_is_documented() -> None:
    """A setting that nobody can find is none."""
    text = documents()["docs/operations.md"]
    settings = [*describe(CoordinatorSettings), *describe(ShardSettings)]
    assert [item.flag for item in settings if f"| `{item.flag}` | `{item.variable}` |" not in text] == []


def test_every_variable_of_the_environment_is_documented() -> None:
    """What changes how a process behaves stands in one place."""
    sources = [
        path.read_text("utf-8")
        for package in ("kintsugi", "coordinator", "shard")
        for path in (ROOT / package).rglob("*.py")
    ]
    used = {name for text in sources for name in re.findall(r"\bKINTSUGI_[A-Z]+(?:_[A-Z]+)*\b", text)}
    assert sorted(name for name in used if f"`{name}`" not in documents()["docs/operations.md"]) == []


def reasons() -> Iterator[str]:
    """Every reason that an error of ours can carry, as far as it stands in the code as a word."""
    for package in ("kintsugi", "coordinator", "shard"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                values: list[ast.expr] = []
                if isinstance(node, ast.keyword) and node.arg == "reason":
                    values = [node.value]
                elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
                    "reason",
                    "_REFUSALS",
                    "NOT_WRITTEN",
                    "OUTCOME_UNKNOWN",
                    "ANSWER_TOO_LARGE",
                ):
                    values = (
                        [key for key in node.value.keys if key] if isinstance(node.value, ast.Dict) else [node.value]
                    )
                elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".fail"):
                    values = node.args[1:]
                yield from (
                    value.value
                    for value in values
                    if isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                    and _REASON.fullmatch(value.value)
                )
    yield from (f"REGISTRY_{health.name}" for health in RegistryHealth if health is not RegistryHealth.OK)


def test_every_reason_is_documented() -> None:
    """Programs decide by reasons, so each one is explained."""
    text = documents()["docs/errors.md"]
    found = set(reasons())
    assert len(found) > 40
    assert sorted(reason for reason in found if f"`{reason}`" not in text) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("docs/operations.md", RegistryHealth),
        ("docs/operations.md", ReplicaState),
        ("docs/operations.md", ReplicaPhase),
        ("docs/operations.md", LogState),
        ("docs/operations.md", LifecycleState),
        ("docs/upgrades.md", UpgradeState),
        ("docs/upgrades.md", Strategy),
        ("ARCHITECTURE.md", [standing.name for standing in Standing]),
        ("ARCHITECTURE.md", [way.name for way in Way]),
    ],
)
def test_every_word_of_the_status_is_explained(name: str, words: Iterable[str]) -> None:
    """Operators meet these words at the worst of times."""
    assert [str(word) for word in words if f"`{word}`" not in documents()[name]] == []


def test_every_redis_key_is_documented() -> None:
    """Whoever looks into Redis can tell what is there."""
    keys, shard = Keys(), ShardKeys(f"{{{DEFAULT_NAMESPACE}:UID/SHARD}}")
    names = [keys.cluster, keys.revision, keys.registry, keys.events, keys.leases, keys.recovery]
    names += [keys.artifact("DIGEST"), shard.head, shard.log, shard.positions, shard.request("ID")]
    assert [name for name in names if f"| `{name}` |" not in documents()["ARCHITECTURE.md"]] == []


def test_failpoints_of_the_documents_exist() -> None:
    """An example with a misspelt failpoint would be refused."""
    named = {name for text in documents().values() for name in re.findall(r"\b([a-z]+\.[a-z_]+)=(?:kill|pause)", text)}
    assert named <= set(Failpoint)


def test_documented_ids_are_owned_by_the_shards_that_the_code_computes() -> None:
    """Clients in other languages rely on these vectors; they never change."""
    line = re.compile(r"^\| `([^`]+)` \| `([0-9a-f]{16})` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
    vectors = line.findall(documents()["ARCHITECTURE.md"])
    assert len(vectors) == 11
    for text, hashed, *shards in vectors:
        doc_id = json.loads(text)
        assert f"{ids.shard_of(doc_id, 2**64):016x}" == hashed, text
        assert [ids.shard_of(doc_id, count) for count in (2, 3, 8, 256)] == [int(shard) for shard in shards], text


@pytest.mark.parametrize(
    "script", ["api_reference.py", "settings_tables.py", "state_diagrams.py", "telemetry_tables.py"]
)
def test_generated_parts_of_documents_are_current(script: str) -> None:
    """Diagrams and tables follow the code, or they lie."""
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_decision_is_listed() -> None:
    """The list is how decisions are found."""
    pages = sorted(path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", documents()["docs/decisions/README.md"]) == pages
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))


def test_the_changelog_knows_the_version() -> None:
    """A release without an entry says nothing to those who upgrade."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in documents()["CHANGELOG.md"]


def environment(address: str) -> dict[str, str]:
    """As after `pip install`, with the cluster's address in the place of the default one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "KINTSUGI_ADDRESS": address, "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="module")
def cluster_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The cluster that the README starts, on a free port; it must stop cleanly."""
    (block,) = blocks("up")
    command = [*block.text.split(), "--port", "0"]
    folder = tmp_path_factory.mktemp("docs")
    process = subprocess.Popen(command, cwd=folder, env=environment(""), stdout=subprocess.PIPE, text=True)
    try:
        address = ""
        for line in process.stdout or ():
            address = line.split()[-1] if line.strip().startswith("coordinator ") else address
            if line.strip() == READY_LINE:
                break
        assert address, "kintsugi up did not become ready"
        yield address
        process.send_signal(signal.SIGINT)
        assert process.wait(BLOCK_TIMEOUT_S) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.cluster
@pytest.mark.parametrize("name", sorted({block.document for block in blocks("run")}))
def test_snippets_of_the_documents_run(name: str, cluster_address: str, tmp_path: Path) -> None:
    """What a newcomer copies works."""
    for block in blocks("run"):
        if block.document != name:
            continue
        text = block.text.replace(README_ADDRESS, cluster_address)
        command = {"python": [sys.executable, "-P", "-c", text], "sh": ["bash", "-euo", "pipefail", "-c", text]}[
            block.language
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(cluster_address), capture_output=True, text=True,
            timeout=BLOCK_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
