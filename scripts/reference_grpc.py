"""The reference of the public gRPC surface, from the comments of the protos: every service, message and enum."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

PROTOS = Path(__file__).resolve().parent.parent / "protos"
PUBLIC = ("search", "documents", "collections", "upgrades", "cluster", "filters", "types")
# What files without a service are about.
HEADINGS = {"filters": "Filters", "types": "Shared messages"}
PACKAGE = "kintsugi.v1"

# Numbers of fields in descriptor.proto: how source locations name what they are about.
MESSAGES, ENUMS, SERVICES, FIELDS, VALUES, METHODS, ONEOFS = 4, 5, 6, 2, 2, 2, 8

INTRODUCTION = """\
# gRPC

The public surface, package `kintsugi.v1`, served by every coordinator together with gRPC health and reflection. Errors
carry details, which [errors](../errors.md) explains. A program that needs nothing but reflection is
[examples/any_grpc_client.py](../../examples/any_grpc_client.py).
"""

Path_ = tuple[int, ...]


def grpc_page() -> str:
    files = list(_described())
    parts = [INTRODUCTION, _contents(files)]
    for file in files:
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        parts += [_service(file, comments, (SERVICES, n)) for n in range(len(file.service))]
        if not file.service:
            parts.append(f"## {HEADINGS[Path(file.name).stem]}\n")
        parts += [_message(comments, (MESSAGES, n), message) for n, message in enumerate(file.message_type)]
        parts += [_enum(comments, (ENUMS, n), enum) for n, enum in enumerate(file.enum_type)]
    return "\n".join(parts)


def _described() -> Iterator[FileDescriptorProto]:
    """The public files, with their comments, in the order in which people read them."""
    names = [f"{PACKAGE.replace('.', '/')}/{name}.proto" for name in PUBLIC]
    missed = {path.stem for path in (PROTOS / "kintsugi/v1").glob("*.proto")} - set(PUBLIC)
    if missed:
        raise ValueError(f"name the place of {', '.join(sorted(missed))} in PUBLIC")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set.pb"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={target}", *names], cwd=PROTOS, check=True)
        files = {file.name: file for file in FileDescriptorSet.FromString(target.read_bytes()).file}
    return iter([files[name] for name in names])


def _contents(files: list[FileDescriptorProto]) -> str:
    lines = ["| service | methods |", "|---|---|"]
    for service in (service for file in files for service in file.service):
        methods = ", ".join(f"[{method.name}](#{_anchor(service, method.name)})" for method in service.method)
        lines.append(f"| [{service.name}](#service-{service.name.lower()}) | {methods} |")
    return "\n".join(lines) + "\n"


def _anchor(service: ServiceDescriptorProto, method: str) -> str:
    return f"{service.name}{method}".lower()


def _service(file: FileDescriptorProto, comments: dict[Path_, str], path: Path_) -> str:
    service = file.service[path[1]]
    parts = [f"## Service {service.name}\n", _prose(comments[path])]
    for n, method in enumerate(service.method):
        asks = "stream of " * method.client_streaming + _link(method.input_type)
        answers = "stream of " * method.server_streaming + _link(method.output_type)
        parts.append(f"### {service.name}.{method.name}\n\n{asks} → {answers}\n")
        parts.append(_prose(comments[(*path, METHODS, n)]))
    return "\n".join(parts)


def _message(comments: dict[Path_, str], path: Path_, message: DescriptorProto) -> str:
    if message.nested_type or message.enum_type:
        raise ValueError(f"message {message.name} nests others, which this page does not show yet")
    parts = [f"### {message.name}\n", _prose(comments[path])]
    if message.field:
        parts += ["| field | type | meaning |", "|---|---|---|"]
    for n, field in enumerate(message.field):
        meaning = _cell(comments[(*path, FIELDS, n)])
        if field.HasField("oneof_index") and not field.proto3_optional:
            oneof = message.oneof_decl[field.oneof_index].name
            meaning = f"One of `{oneof}`. {meaning}"
        parts.append(f"| `{field.name}` = {field.number} | {_type(field)} | {meaning} |")
    for n, oneof in enumerate(message.oneof_decl):
        if text := comments.get((*path, ONEOFS, n), ""):
            parts.append(f"\n`{oneof.name}`: {_cell(text)}")
    return "\n".join(parts) + "\n"


def _enum(comments: dict[Path_, str], path: Path_, enum: EnumDescriptorProto) -> str:
    lines = [f"### {enum.name}\n", _prose(comments[path]), "| value | meaning |", "|---|---|"]
    for n, value in enumerate(enum.value):
        lines.append(f"| `{value.name}` = {value.number} | {_cell(comments[(*path, VALUES, n)])} |")
    return "\n".join(lines) + "\n"


def _type(field: FieldDescriptorProto) -> str:
    name = _link(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(full_name: str) -> str:
    """A message of ours as a link, a foreign one as its name."""
    name = full_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if full_name == f".{PACKAGE}.{name}" else f"`{full_name.lstrip('.')}`"


def _prose(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.strip().splitlines()) + "\n"


def _cell(comment: str) -> str:
    return re.sub(r"\s+", " ", comment.strip()).replace("|", "\\|")
