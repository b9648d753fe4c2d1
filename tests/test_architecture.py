"""The rules of the code base that a machine can check: imports, sizes, names, docstrings, tests."""

import ast
import io
import re
import statistics
import subprocess
import tokenize
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kintsugi", "coordinator", "shard")
GENERATED = ("kintsugi/v1/", "kintsugi/internal/v1/")

# What each package may import of the others. `kintsugi up` starts the processes by name, it does not import them.
ALLOWED_IMPORTS = {
    "kintsugi": {"kintsugi"},
    "coordinator": {"coordinator", "kintsugi"},
    "shard": {"shard", "kintsugi"},
}
# Modules that decide without input or output: testable with values alone.
PURE_MODULES = (
    "kintsugi.errors", "kintsugi.ids", "kintsugi.lifecycle", "kintsugi.limits", "kintsugi.metrics", "kintsugi.position",
    "kintsugi.registry.records", "kintsugi.registry.replicas", "kintsugi.registry.index_versions",
    "kintsugi.filters.tree", "kintsugi.filters.matching", "kintsugi.filters.wire", "coordinator.merge", "coordinator.grouping", "coordinator.plan", "shard.outcomes",
)  # fmt: skip
IMPURE_IMPORTS = {"grpc", "redis", "asyncio", "lmdb", "usearch"}
# The only places that know the keys in Redis.
KEY_USERS = ("kintsugi.keys", "kintsugi.redis_client", "kintsugi.registry.", "kintsugi.log.")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
P95_FUNCTION_LINES = 40
MEDIAN_FUNCTION_LINES = 10
MAX_PARAMETERS = 7
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tracked():
    """The Python files of the project, without generated stubs."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = listed.stdout.split() or [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("[!.]*/**/*.py"))]
    files = [name for name in found if not name.startswith(GENERATED) and (ROOT / name).exists()]
    assert files, "no files were found to check"
    return files


def sources():
    return [name for name in tracked() if name.startswith(PACKAGES)]


def suites():
    """The files that hold tests."""
    return [name for name in tracked() if Path(name).name.startswith("test_") and name.startswith("tests/")]


@cache
def tree(name):
    return ast.parse((ROOT / name).read_text())


def module_name(name):
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def modules():
    """Our modules by their dotted names."""
    return {module_name(name): name for name in sources()}


def imported(node, module, is_package):
    """The dotted names that one import statement brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        parts = module.split(".")
        parent = ".".join(parts[: len(parts) - node.level + is_package])
        prefix = f"{parent}.{node.module}" if node.module else parent
    else:
        prefix = node.module or ""
    return [f"{prefix}.{alias.name}" for alias in node.names]


def imports(name, *, top_level_only=False):
    """All names imported by a file, outside `if TYPE_CHECKING`."""
    found = []
    pending = list(tree(name).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += imported(node, module_name(name), name.endswith("__init__.py"))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not (top_level_only and isinstance(node, Function)):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)
            ]
    return found


def functions(name):
    return [node for node in ast.walk(tree(name)) if isinstance(node, Function)]


def docstring_lines(node):
    """The lines of the docstrings inside a node, which are no code."""
    lines = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Module | ast.ClassDef | Function) and child.body:
            first = child.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines |= set(range(first.lineno, first.end_lineno + 1))
    return lines


@cache
def token_lines(name):
    """The lines of a file that hold more than comments and blanks."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO((ROOT / name).read_text()).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines


def code_lines(name, node):
    """Lines of code: without blanks, comments and docstrings."""
    inside = {line for line in token_lines(name) if node.lineno <= line <= node.end_lineno} if hasattr(node, "lineno") else token_lines(name)  # fmt: skip
    return len(inside - docstring_lines(node))


def test_processes_import_only_what_they_may():
    """coordinator -> kintsugi <- shard, and never one process the other."""
    wrong = [
        f"{name} imports {target}"
        for name, target in ((name, target) for name in sources() for target in imports(name))
        if target.split(".")[0] in PACKAGES and target.split(".")[0] not in ALLOWED_IMPORTS[name.split("/")[0]]
    ]
    assert wrong == []


def test_modules_do_not_import_each_other_in_circles():
    """Every module can be understood, and loaded, after the ones it imports."""
    graph = {}
    for module, name in modules().items():
        targets = set()
        for target in imports(name, top_level_only=True):
            # `from package import name` may mean a module or something in it.
            target_module = target if target in modules() else target.rpartition(".")[0]
            if target_module in modules() and target_module != module:
                targets.add(target_module)
        graph[module] = targets
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_pure_modules_do_no_input_or_output():
    """What decides is kept apart from what talks to the world."""
    wrong = [
        f"{module} imports {target}"
        for module in PURE_MODULES
        if module in modules()
        for target in imports(modules()[module])
        if target.split(".")[0] in IMPURE_IMPORTS
    ]
    assert wrong == []


def test_only_registry_and_log_know_redis_keys():
    """Everybody else goes through their interfaces; others may make Keys from a namespace, and pass it on."""
    wrong = [
        f"{name} imports {target}"
        for module, name in modules().items()
        if not module.startswith(KEY_USERS)
        for target in imports(name)
        if target.startswith("kintsugi.keys.")
        and target not in {"kintsugi.keys.Keys", "kintsugi.keys.DEFAULT_NAMESPACE"}
    ]
    assert wrong == []


def test_files_stay_readable_in_one_sitting():
    """A file that outgrows its budget holds more than one idea."""
    sizes = {name: code_lines(name, tree(name)) for name in sources()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_functions_stay_short():
    """Long functions hide their outline: hard limit, and the distribution."""
    sizes = {
        f"{name}:{function.lineno} {function.name}": code_lines(name, function)
        for name in sources()
        for function in functions(name)
    }
    assert {where: size for where, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}
    ordered = sorted(sizes.values())
    assert ordered[int(len(ordered) * 0.95)] <= P95_FUNCTION_LINES
    assert statistics.median(ordered) <= MEDIAN_FUNCTION_LINES


def is_command(function):
    """Whether click calls it: its parameters are the command's options."""
    return any("option" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_functions_take_few_parameters():
    """More than seven belong into a dataclass."""
    wrong = []
    for name in sources():
        for function in functions(name):
            arguments = function.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            if len([n for n in names if n not in ("self", "cls")]) > MAX_PARAMETERS and not is_command(function):
                wrong.append(f"{name}:{function.lineno} {function.name} takes {len(names)}")
    assert wrong == []


def test_every_module_says_what_it_does():
    """A module without a docstring has no stated purpose, and nothing to hold it to."""
    assert [name for name in tracked() if not ast.get_docstring(tree(name)) and tree(name).body] == []


def test_names_say_a_role():
    """`utils` says nothing about what is inside."""
    wrong = [name for name in tracked() if set(re.split(r"[/_.]", name)) & BANNED_NAMES]
    wrong += [
        f"{name}:{node.lineno} {node.name}"
        for name in sources()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ClassDef) and node.name.lower().endswith(tuple(BANNED_NAMES - {"base", "common"}))
    ]
    assert wrong == []


def comments(name):
    tokens = tokenize.generate_tokens(io.StringIO((ROOT / name).read_text()).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def test_no_work_is_left_in_comments():
    """An open end is an issue, not a comment."""
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
    assert [f"{name}:{line}" for name in tracked() for line, text in comments(name) if marks.search(text)] == []


def test_errors_are_not_swallowed():
    """`except Exception: pass` hides defects."""
    wrong = [
        f"{name}:{node.lineno}"
        for name in sources()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(statement, ast.Pass) for statement in node.body)
    ]
    assert wrong == []


def calls(name):
    """Every call in a file as (line, text of what is called)."""
    return [(node.lineno, ast.unparse(node.func)) for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]


def test_servers_decode_with_decoders_made_once():
    """msgspec crashes when two threads are the first to decode into the same type, so no server names types late."""
    late = [
        f"{name}:{node.lineno}"
        for name in sources()
        if name.startswith(("coordinator/", "shard/", "kintsugi/registry/", "kintsugi/log/"))
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"decode", "convert"}
        and any(keyword.arg == "type" for keyword in node.keywords)
    ]
    assert late == []


def test_tests_inject_instead_of_patching():
    """Patching ties tests to how the code is written; callables and clocks are parameters."""
    wrong = [f"{name} imports {target}" for name in suites() for target in imports(name) if "mock" in target.split(".")]
    wrong += [
        f"{name}:{line}" for name in suites() for line, what in calls(name) if what.endswith("monkeypatch.setattr")
    ]
    assert wrong == []


def test_tests_wait_for_conditions_instead_of_sleeping():
    """A sleep is too short on a busy machine and too long on every other one. Waiting for a condition may poll."""
    wrong = []
    for name in suites():
        for function in functions(name):
            if not function.name.startswith("test_"):
                continue
            loops = [n for n in ast.walk(function) if isinstance(n, ast.While)]
            polls = {call for loop in loops for call in ast.walk(loop)}
            wrong += [
                f"{name}:{node.lineno}"
                for node in ast.walk(function)
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep") and node not in polls
                and not (node.args and ast.unparse(node.args[0]) == "0")
            ]  # fmt: skip
    assert wrong == []


def test_every_test_says_what_behaviour_it_protects():
    """The docstring is the requirement; the name is its short form."""
    wrong = [
        f"{name}:{function.lineno} {function.name}"
        for name in suites()
        for function in functions(name)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert wrong == []
