"""The reference of the Python SDK, from its source: signatures, docstrings, fields and options of what it exports."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache

import kintsugi
from kintsugi import ids
from kintsugi.filters import dicts, tree
from kintsugi.sdk import (
    aio,
    arrays,
    blocking,
    convert,
    filtering,
    options,
    searching,
    status,
    types,
    upgrade_types,
    upgrades,
    verifying,
)

VALUE_MODULES = (types, status, verifying, upgrade_types)
# The clients' methods stand in these classes.
CLIENT_CLASSES = ((aio.AsyncClient, aio), (searching.AsyncSearches, searching), (upgrades.AsyncUpgrades, upgrades))
ALIAS_MODULES = (ids, convert, arrays, options, types, filtering, dicts, tree)
OPTION = re.compile(r"^(\w+(?:, \w+)*): (.*)$")
SAME_AS = re.compile(r"^as in (\w+)\.$")

INTRODUCTION = """\
# Python

```python
from kintsugi import AsyncClient, Client, Model
```

`Client` is for threads and scripts, `AsyncClient` for asyncio. They have the same methods: those of `AsyncClient` are
awaited (`scroll` is iterated with `async for`). Both are context managers. Every method takes `timeout_s`, the time for
the whole call with its retries. [errors](../errors.md) says what calls raise and what to do then.
"""


def python_page() -> str:
    parts = [
        INTRODUCTION,
        "## The clients\n",
        *_clients(),
        "## Values\n",
        *_values(),
        *_filters(),
        "## Errors\n",
        *_errors(),
    ]
    return "\n".join(parts)


# --- Clients ----------------------------------------------------------------------------------------------------------


def _clients() -> Iterator[str]:
    constructor = _methods(blocking.Client)["__init__"]
    yield f"### Client and AsyncClient\n\n{_code(_signature('Client', constructor, blocking))}"
    yield _definitions((inspect.getdoc(aio.AsyncClient) or "").partition("\n\n")[2])
    for owner, module in CLIENT_CLASSES:
        for name, method in _methods(owner).items():
            if not name.startswith("_"):
                yield from _method(name, method, module)


def _method(name: str, method: ast.FunctionDef | ast.AsyncFunctionDef, module: object) -> Iterator[str]:
    if any(ast.unparse(decorator) == "property" for decorator in method.decorator_list):
        yield f"### {name}\n\n{_code(f'{name}: {ast.unparse(method.returns)}')}"
    else:
        yield f"### {name}\n\n{_code(_signature(name, method, module))}"
    yield _text(ast.get_docstring(method) or "")
    if method.args.kwarg is not None:
        yield _option_table(ast.unparse(method.args.kwarg.annotation.slice))


def _methods(owner: type) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: node for node in functions}


def _signature(name: str, method: ast.FunctionDef | ast.AsyncFunctionDef, module: object) -> str:
    """One line, or a parameter per line when it is long. Constants are shown by their values."""
    arguments = method.args
    places = arguments.args[1:]
    defaults = [None] * (len(places) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [_parameter(*pair, module) for pair in zip(places, defaults, strict=True)]
    if arguments.kwonlyargs:
        keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        shown += ["*", *(_parameter(*pair, module) for pair in keywords)]
    if arguments.kwarg is not None:
        shown.append("**options")
    returns = "" if name[0].isupper() or method.returns is None else f" -> {ast.unparse(method.returns)}"
    line = f"{name}({', '.join(shown)}){returns}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in shown), f"){returns}"])


def _parameter(argument: ast.arg, default: ast.expr | None, module: object) -> str:
    text = f"{argument.arg}: {ast.unparse(argument.annotation)}"
    if default is None:
        return text
    value = eval(compile(ast.Expression(default), "<default>", "eval"), vars(module))
    return f"{text} = {value!r}"


# --- Options ----------------------------------------------------------------------------------------------------------


def _option_table(kind: str) -> str:
    lines = ["| option | type | meaning |", "|---|---|---|"]
    meanings = _meanings(kind)
    for name, annotation in _annotations(kind).items():
        lines.append(f"| `{name}` | `{_cell(annotation)}` | {_cell(meanings[name])} |")
    return "\n".join(lines) + "\n"


@cache
def _option_classes() -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(options))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _bases(kind: str) -> list[str]:
    named = [ast.unparse(part) for part in _option_classes()[kind].bases]
    return [name for name in named if name in _option_classes()]


def _annotations(kind: str) -> dict[str, str]:
    """Its own options first, then those of its bases."""
    found = {
        node.target.id: ast.unparse(node.annotation)
        for node in _option_classes()[kind].body
        if isinstance(node, ast.AnnAssign)
    }
    for parent in _bases(kind):
        found = {**found, **{name: text for name, text in _annotations(parent).items() if name not in found}}
    return found


def _meanings(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for parent in _bases(kind):
        found |= _meanings(parent)
    for name, text in _entries(ast.get_docstring(_option_classes()[kind]) or ""):
        same = SAME_AS.match(text)
        found[name] = _meanings(same[1])[name] if same else text
    return found


def _entries(docstring: str) -> Iterator[tuple[str, str]]:
    """The names that a docstring explains as `name: meaning` or `name, name: meaning`, each with its meaning."""
    entries: list[tuple[str, list[str]]] = []
    for line in docstring.splitlines():
        if begins := OPTION.match(line):
            entries.append((begins[1], [begins[2]]))
        elif entries:
            entries[-1][1].append(line.strip())
    for names, lines in entries:
        for name in names.split(", "):
            yield name, " ".join(lines)


# --- Values and errors ------------------------------------------------------------------------------------------------


def _values() -> Iterator[str]:
    """The short names of types, then the exported values and those that they consist of, in the order of their modules."""
    yield "In signatures and fields:\n\n| name | type |\n|---|---|"
    for module in ALIAS_MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                yield f"| `{ast.unparse(node.target)}` | `{_cell(ast.unparse(node.value))}` |"
    yield ""
    for module in VALUE_MODULES:
        tree = ast.parse(inspect.getsource(module))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from _value(node)
    retry = importlib.import_module("kintsugi.sdk.retry")
    (node,) = ast.parse(inspect.getsource(retry.RetryPolicy)).body
    # Its methods are the SDK's own.
    node.body = [part for part in node.body if not isinstance(part, ast.FunctionDef)]
    yield from _value(node)


def _value(node: ast.ClassDef) -> Iterator[str]:
    yield f"### {node.name}\n\n{_definitions(ast.get_docstring(node) or '')}"
    if node.name not in kintsugi.__all__:
        yield "A part of others; not imported from `kintsugi`.\n"
    fields, members = [], []
    for part, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign):
            fields.append(ast.unparse(part))
        elif isinstance(part, ast.Assign):
            meaning = following.value.value if isinstance(following, ast.Expr) else ""
            members.append(f"- `{node.name}.{ast.unparse(part.targets[0])}` = {ast.unparse(part.value)}: {meaning}")
        elif isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            is_property = any(ast.unparse(decorator) == "property" for decorator in part.decorator_list)
            shown = part.name if is_property else _signature(part.name, part, types).partition(" -> ")[0]
            meaning = _cell(ast.get_docstring(part) or "")
            members.append(f"- `{shown} -> {ast.unparse(part.returns)}`{meaning and ': ' + meaning}")
    if fields:
        yield _code("\n".join(fields))
    if members:
        yield "\n".join(members) + "\n"


def _filters() -> Iterator[str]:
    yield "## Filters\n\nThe parts of a filter as a tree, from `kintsugi.filters.tree`. Most people write"
    yield "[a dict or an expression](../filters.md).\n\n| class | true when |\n|---|---|"
    for node in ast.parse(inspect.getsource(tree)).body:
        if isinstance(node, ast.ClassDef):
            # Fields that nobody gives are no parameters.
            fields = [
                ast.unparse(part).replace('"', "")
                for part in node.body
                if isinstance(part, ast.AnnAssign) and "init=False" not in ast.unparse(part)
            ]
            shown = f"{node.name}({', '.join(fields)})".replace("'", "")
            yield f"| `{_cell(shown)}` | {_cell(ast.get_docstring(node) or '')} |"
    yield ""


def _errors() -> Iterator[str]:
    errors = importlib.import_module("kintsugi.errors")
    yield _text(inspect.getdoc(errors.KintsugiError) or "")
    yield "| class | status | raised when |\n|---|---|---|"
    tree = inspect.getdoc(errors) or ""
    for name in re.findall(r"^\s+(\w+)  ", tree, re.MULTILINE):
        if name in kintsugi.__all__:
            (meaning,) = re.findall(rf"^\s+{name}\s\s+(.*)$", tree, re.MULTILINE)
            yield f"| `{name}` | `{getattr(errors, name).status}` | {_cell(meaning)} |"
    yield ""


def _definitions(docstring: str) -> str:
    """Prose, with lines that explain a name as a list."""
    lines: list[str] = []
    for line in docstring.splitlines():
        shown = re.sub(r"^((?:`?\w+`?)(?:, `?\w+`?)*(?: \([^)]*\))?): ", _as_item, line)
        if shown.startswith("- ") and lines and lines[-1] and not lines[-1].startswith("- "):
            lines.append("")
        lines.append(shown)
    return "\n".join(lines) + "\n"


def _as_item(found: re.Match[str]) -> str:
    named = found[1] if "`" in found[1] else ", ".join(f"`{name}`" for name in found[1].split(", "))
    return f"- {named}: "


def _text(docstring: str) -> str:
    return docstring + "\n"


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
