"""The protos are the product: everything in them is documented, and the committed stubs are made from them."""

import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2

from kintsugi.rpc.errors import CODES

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"

# Numbers of fields in descriptor.proto: how source locations name what they are about.
FILE_MESSAGES, FILE_ENUMS, FILE_SERVICES = 4, 5, 6
MESSAGE_FIELDS, MESSAGE_NESTED, MESSAGE_ENUMS, MESSAGE_ONEOFS = 2, 3, 4, 8
ENUM_VALUES, SERVICE_METHODS = 2, 2

STATUS_NAMES = {code.name for code in grpc.StatusCode}
REASONS = {error_class.reason for error_class in CODES}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Our proto files as descriptors with their comments."""
    target = tmp_path_factory.mktemp("protos") / "set.pb"
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            "--include_source_info",
            f"--descriptor_set_out={target}",
            *sources,
        ],
        cwd=PROTOS,
        check=True,
    )
    found = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    assert len(found) == len(sources) > 0
    return found


def comments(file):
    """The leading comment of everything in a file, by its path."""
    return {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}


def messages(file):
    """Every message with its path, nested ones included. Map entries are made by the compiler."""
    pending = [((FILE_MESSAGES, i), message) for i, message in enumerate(file.message_type)]
    while pending:
        path, message = pending.pop()
        if not message.options.map_entry:
            yield path, message
            pending += [((*path, MESSAGE_NESTED, i), nested) for i, nested in enumerate(message.nested_type)]


def enums(file):
    yield from (((FILE_ENUMS, i), enum) for i, enum in enumerate(file.enum_type))
    for path, message in messages(file):
        yield from (((*path, MESSAGE_ENUMS, i), enum) for i, enum in enumerate(message.enum_type))


def documented_things(file):
    """Everything that must have a comment, as (path, name)."""
    for path, message in messages(file):
        yield path, message.name
        yield from (((*path, MESSAGE_FIELDS, i), f"{message.name}.{f.name}") for i, f in enumerate(message.field))
        for i, oneof in enumerate(message.oneof_decl):
            if not any(f.proto3_optional for f in message.field if f.HasField("oneof_index") and f.oneof_index == i):
                yield (*path, MESSAGE_ONEOFS, i), f"{message.name}.{oneof.name}"
    for path, enum in enums(file):
        yield path, enum.name
        yield from (((*path, ENUM_VALUES, i), value.name) for i, value in enumerate(enum.value))
    for i, service in enumerate(file.service):
        yield (FILE_SERVICES, i), service.name
        for j, method in enumerate(service.method):
            yield (FILE_SERVICES, i, SERVICE_METHODS, j), f"{service.name}.{method.name}"


def test_everything_in_the_protos_is_commented(files):
    """No message, field, oneof, enum, value, service or rpc goes without its contract."""
    missing = [
        f"{file.name}: {name}"
        for file in files
        for path, name in documented_things(file)
        if not comments(file).get(path)
    ]
    assert missing == []


def test_comments_are_sentences(files):
    """A comment starts like a sentence, and ends with a full stop."""
    wrong = [
        f"{file.name}: {name}: {comment}"
        for file in files
        for path, name in documented_things(file)
        if (comment := comments(file).get(path, "")) and not comment.endswith((".", ":"))
    ]
    assert wrong == []


def test_every_rpc_names_its_status_codes(files):
    """Callers learn from the comment what can fail: the codes, those of the service, or that nothing can."""
    silent = []
    for file in files:
        for i, service in enumerate(file.service):
            of_service = STATUS_NAMES & set(re.findall(r"[A-Z_]+", comments(file)[FILE_SERVICES, i]))
            for j, method in enumerate(service.method):
                comment = comments(file)[FILE_SERVICES, i, SERVICE_METHODS, j]
                named = STATUS_NAMES & set(re.findall(r"[A-Z_]+", comment))
                if not (named or "Never fails" in comment or ("those of the service" in comment and of_service)):
                    silent.append(f"{service.name}.{method.name}")
    assert silent == []


def test_comments_name_only_codes_and_reasons_that_exist(files):
    """A misspelt code cannot be handled."""
    for file in files:
        for i, service in enumerate(file.service):
            for j, method in enumerate(service.method):
                comment = comments(file)[FILE_SERVICES, i, SERVICE_METHODS, j]
                unknown = set(re.findall(r"\b([A-Z][A-Z_]{3,}):", comment)) - STATUS_NAMES - REASONS
                assert not unknown, f"{service.name}.{method.name}: {unknown}"


def snake(name):
    """UpperCamelCase as UPPER_SNAKE_CASE."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def test_enums_are_prefixed_and_start_unspecified(files):
    """Values share one scope in many languages, and 0 is what an old client did not set."""
    for file in files:
        for _, enum in enums(file):
            prefix = snake(enum.name)
            assert enum.value[0].name == f"{prefix}_UNSPECIFIED"
            assert enum.value[0].number == 0
            assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


def test_package_is_the_folder(files):
    """Proto path, proto package and import path are one name."""
    for file in files:
        assert file.package == str(Path(file.name).parent).replace("/", ".")
        assert file.package.startswith("kintsugi.")


def test_requests_and_responses_belong_to_one_rpc(files):
    """A message of its own per rpc leaves room to grow; searches and writes share theirs on purpose."""
    shared_responses = {"WriteResponse"}
    for file in files:
        used = [
            name.rpartition(".")[2]
            for service in file.service
            for method in service.method
            for name in (method.input_type, method.output_type)
        ]
        assert {name for name in used if used.count(name) > 1} <= shared_responses, file.name


def test_committed_stubs_are_current():
    """`make verify`: the stubs in the repository are what the protos generate."""
    result = subprocess.run(
        [sys.executable, "scripts/gen_protos.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
