"""Names of logs, traces and metrics: in one place, all used, all documented; the dashboard knows no others."""

import ast
import json
import re
from pathlib import Path

import pytest

from kintsugi.telemetry.log_events import LogEvent
from kintsugi.telemetry.metric_names import CATALOGUE, Kind
from kintsugi.telemetry.trace_names import Attribute, SpanEvent

ROOT = Path(__file__).resolve().parent.parent
DASHBOARDS = sorted((ROOT / "deploy/dashboards").glob("*.json"))
DOCUMENT = (ROOT / "docs/telemetry.md").read_text()
# Where names are made; everywhere else they are imported.
HOME = "kintsugi/telemetry/"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
SERIES = re.compile(r"\bkintsugi_[a-z_]+")


def sources() -> dict[str, str]:
    files = [path for package in ("kintsugi", "coordinator", "shard") for path in (ROOT / package).rglob("*.py")]
    named = {str(path.relative_to(ROOT)): path.read_text() for path in files}
    return {name: text for name, text in named.items() if "/v1/" not in name}


def elsewhere() -> dict[str, str]:
    return {name: text for name, text in sources().items() if not name.startswith(HOME)}


def strings(text: str) -> set[str]:
    """The string constants of a file but for its docstrings, which may name anything."""
    tree = ast.parse(text)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation)
    return {node.value for node in constants if isinstance(node.value, str)}


def is_logger(node: ast.expr) -> bool:
    """`log`, `_log`, `self._log`, `logger(...)`."""
    if isinstance(node, ast.Call):
        return is_logger(node.func)
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.strip("_") in {"log", "logger"}


def test_no_metric_is_named_outside_the_catalogue() -> None:
    """A metric that is made up on the spot would stand in no table."""
    used = {name: [one for one in strings(text) if SERIES.fullmatch(one)] for name, text in elsewhere().items()}
    counting = {name: text for name, text in elsewhere().items() if "prometheus_client" in text}
    made = {name for name, text in counting.items() if re.search(r"\b(Counter|Gauge|Histogram|Summary)\(", text)}
    assert {name: found for name, found in used.items() if found} == {}
    assert made == set()


def test_no_log_event_is_a_bare_string() -> None:
    """Whoever searches logs by machine needs names that do not change with the wording."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and is_logger(node.func.value)
        and node.args
        and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
    ]
    assert wrong == []


def test_only_telemetry_knows_the_libraries_that_log_and_count() -> None:
    """Another logger would write lines without process and request id."""
    structlog = [
        name for name, text in sources().items() if re.search(r"^\s*(import|from) structlog", text, re.MULTILINE)
    ]
    standard = [
        name for name, text in elsewhere().items() if re.search(r"^\s*(import|from) logging", text, re.MULTILINE)
    ]
    assert structlog == ["kintsugi/telemetry/logs.py"]
    assert standard == []


def test_no_span_event_or_attribute_is_named_outside_telemetry() -> None:
    """Events and attributes reach spans by their members, never as strings."""
    attributes = {attribute.value for attribute in Attribute}
    wrong = [name for name, text in elsewhere().items() if strings(text) & attributes]
    wrong += [name for name, text in elsewhere().items() if re.search(r"span\.(add_event|set_attribute)", text)]
    assert wrong == []


@pytest.mark.parametrize("kind", [LogEvent, SpanEvent, Attribute])
def test_every_name_is_used_and_documented(kind: type[LogEvent | SpanEvent | Attribute]) -> None:
    """A name that nothing says any more would be looked for in vain."""
    code = "\n".join(sources().values())
    # Attributes of events are keyword arguments in the lower case of the member.
    unused = [m.name for m in kind if f"{kind.__name__}.{m.name}" not in code and f"{m.name.lower()}=" not in code]
    unused = [name for name in unused if f'"{name.lower()}":' not in code]
    assert unused == []
    assert [member.value for member in kind if f"| `{member.value}` | {member.meaning} |" not in DOCUMENT] == []


def test_every_metric_is_used_and_documented() -> None:
    """The catalogue holds what exists, and says it in the form that Prometheus expects."""
    text = (ROOT / "kintsugi/telemetry/metric_names.py").read_text()
    variables = re.findall(r"^([A-Z_]+) = _(?:counter|gauge|histogram)\(", text, re.MULTILINE)
    code = "\n".join(text for name, text in sources().items() if not name.endswith("metric_names.py"))
    assert [name for name in variables if not re.search(rf"(metric_)?names\.{name}\b", code)] == []
    assert len(variables) == len(CATALOGUE) == len({metric.name for metric in CATALOGUE})
    for metric in CATALOGUE:
        assert re.fullmatch(r"kintsugi_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert f"| `{metric.name}` | {metric.kind.value} |" in DOCUMENT


def expressions(node: object) -> list[str]:
    """All queries of a dashboard: of panels and of variables."""
    if isinstance(node, dict):
        own = [node[key] for key in ("expr", "query") if isinstance(node.get(key), str)]
        return own + [found for value in node.values() for found in expressions(value)]
    return [found for value in node for found in expressions(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_ask_for_documented_metrics_only(path: Path) -> None:
    """A panel that asks for a name that does not exist stays empty without a word."""
    series = {
        metric.name + suffix: set(metric.labels) | ({"le"} if suffix == "_bucket" else set())
        for metric in CATALOGUE
        for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
    }
    queries = expressions(json.loads(path.read_text()))
    asked = {name for query in queries for name in SERIES.findall(query)}
    assert asked - set(series) == set()
    assert len(asked) > 30
    for query in queries:
        for name, selected in re.findall(r"\b(kintsugi_[a-z_]+)\{([^}]*)\}", query):
            labels = set(re.findall(r"([a-z_]+)\s*[=!]", re.sub(r'"[^"]*"', '""', selected)))
            assert labels <= series[name] | {"instance", "job"}, query


def test_dashboards_cover_the_catalogue() -> None:
    """Whoever adds a metric decides whether people should see it; these are for machines or for a closer look."""
    not_shown = {"kintsugi_process_start_time_seconds", "kintsugi_lifecycle", "kintsugi_registry_incarnation",
                 "kintsugi_recoveries_total", "kintsugi_index_checkpoint_seq"}  # fmt: skip
    asked = {name for path in DASHBOARDS for query in expressions(json.loads(path.read_text())) for name in SERIES.findall(query)}  # fmt: skip
    shown = {metric.name for metric in CATALOGUE if any(name.startswith(metric.name) for name in asked)}
    assert {metric.name for metric in CATALOGUE} - shown == not_shown
