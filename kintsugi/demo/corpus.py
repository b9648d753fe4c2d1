"""The demo's documents: the documentation of the Python standard library of the running interpreter.

Every importable public module, class, function, method and property with a docstring of its own is one document: its
id is the qualified name, its text the docstring. The same interpreter gives the same documents in the same order.
Modules are imported in a subprocess, because importing all of them leaves nothing as it was. Knows nothing of vectors.
"""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass

# Opens a browser, prints a poem, starts a window, is gone from newer versions or replaced by setuptools, or holds tests.
SKIPPED_PACKAGES = frozenset(
    {"antigravity", "this", "idlelib", "test", "turtle", "turtledemo", "tkinter", "lib2to3", "distutils", "pydoc_data"}
)
SKIPPED_PARTS = frozenset({"__main__", "test", "tests", "idle_test"})
MAX_ID_CHARACTERS = 200
COLLECT_TIMEOUT_S = 120

_METHODS = (
    types.FunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
    classmethod,
    staticmethod,
)
_PROPERTIES = (property, types.GetSetDescriptorType)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


class CorpusUnavailable(Exception):
    """The standard library could not be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document. `kind` is module, class, function, method or property; `first_line` is that of the docstring."""

    id: str
    module: str
    kind: str
    name: str
    first_line: str
    text: str

    @property
    def attributes(self) -> dict[str, str]:
        return {"module": self.module, "kind": self.kind, "name": self.name, "first_line": self.first_line}


def load(interpreter: str = sys.executable) -> list[Entry]:
    """Collects the documents in a subprocess, in the order of their ids."""
    command = [interpreter, "-W", "ignore", "-m", "kintsugi.demo.corpus"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=COLLECT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CorpusUnavailable(f"reading the standard library took more than {COLLECT_TIMEOUT_S} s") from error
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CorpusUnavailable(f"reading the standard library failed with {done.returncode}: {' '.join(complaint)}")
    return [Entry(**json.loads(line)) for line in done.stdout.splitlines()]


def collect() -> list[Entry]:
    """Collects the documents in this process, importing the whole standard library into it."""
    entries: dict[str, Entry] = {}
    seen: set[int] = set()
    for name in module_names():
        module = _import_quietly(name)
        if module is None:
            continue
        for entry in _of_module(module, name, seen):
            entries.setdefault(entry.id, entry)
    return [entries[doc_id] for doc_id in sorted(entries)]


def module_names() -> Iterator[str]:
    """The public modules of the standard library, packages before their contents, in the order of their names."""
    for top in sorted(sys.stdlib_module_names):
        if top.startswith("_") or top in SKIPPED_PACKAGES:
            continue
        yield top
        yield from _contents(top)


def _contents(package: str) -> Iterator[str]:
    module = _import_quietly(package)
    for found in sorted(pkgutil.iter_modules(getattr(module, "__path__", ())), key=lambda found: found.name):
        if found.name.startswith("_") or found.name in SKIPPED_PARTS:
            continue
        name = f"{package}.{found.name}"
        yield name
        if found.ispkg:
            yield from _contents(name)


def _import_quietly(name: str) -> types.ModuleType | None:
    """The module, or None when it cannot be imported here (another platform's, or a part that was left out)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit):  # noqa: BLE001  (a module may fail in any way)
            return None


def _of_module(module: types.ModuleType, name: str, seen: set[int]) -> Iterator[Entry]:
    if text := _clean(module.__doc__):
        yield _entry(name, "module", name, text)
    for member, value in sorted(vars(module).items()):
        if member.startswith("_") or id(value) in seen or not _belongs(value, module, member):
            continue
        if isinstance(value, type):
            seen.add(id(value))
            yield from _of_class(value, name, member)
        elif isinstance(value, _FUNCTIONS):
            seen.add(id(value))
            if text := _clean(value.__doc__):
                yield _entry(name, "function", f"{name}.{member}", text)


def _of_class(owner: type, module: str, path: str) -> Iterator[Entry]:
    if text := _clean(vars(owner).get("__doc__")):
        yield _entry(module, "class", f"{module}.{path}", text)
    for member, value in sorted(vars(owner).items()):
        if member.startswith("_"):
            continue
        kind = "method" if isinstance(value, _METHODS) else "property" if isinstance(value, _PROPERTIES) else ""
        if kind and (text := _clean(value.__doc__)):
            yield _entry(module, kind, f"{module}.{path}.{member}", text)


def _belongs(value: object, module: types.ModuleType, member: str) -> bool:
    """Whether a member is the module's own, or one that it shows on behalf of a private module."""
    home = getattr(value, "__module__", None) or ""
    if not isinstance(home, str) or home == module.__name__:
        return True
    return home.split(".")[0].startswith("_") or member in getattr(module, "__all__", ())


def _clean(docstring: object) -> str:
    """The docstring as text without its indentation; empty when it says nothing."""
    if not isinstance(docstring, str) or docstring.startswith("Alias for field number"):
        return ""
    # Characters that are not Unicode text cannot be stored.
    return inspect.cleandoc(docstring).strip().encode(errors="replace").decode()


def _entry(module: str, kind: str, doc_id: str, text: str) -> Entry:
    doc_id = doc_id[:MAX_ID_CHARACTERS]
    return Entry(doc_id, module, kind, doc_id.removeprefix(f"{module}."), text.splitlines()[0], text)


def _print_entries() -> None:
    """Prints one JSON object per line, on a stdout that no imported module gets to see."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for entry in collect():
            out.write(json.dumps(asdict(entry)) + "\n")
        out.flush()
        # Modules may have started threads or registered exit handlers: none of them is wanted.
        os._exit(0)


if __name__ == "__main__":
    _print_entries()
