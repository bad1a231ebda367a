"""Writes docs/api.md: the API as the comments of the protos and the table of errors have it. `make docs` runs it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from chainrule.server import errors
from chainrule.server.rpc.status import DOMAIN, RETRY_DELAY_S, code_of

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "api.md"
PACKAGE = "chainrule.v1"

Place = tuple[int, ...]
"""Where something is in a file's descriptor: numbers of fields and positions, in turn, as SourceCodeInfo has them."""

INTRODUCTION = """\
# API reference

Package `chainrule.v1`, as the comments in `protos/chainrule/v1` and the service's table of errors have it: `make docs`
writes this page. A server describes itself, too (gRPC reflection), and answers `grpc.health.v1`.

A field without `optional` that is not set has the default of its type: 0, empty, false. *Output only* fields are the
server's to set; what a client sends in them is ignored.
"""

ERRORS = """\
## Errors

Every error of the service comes as a `google.rpc.Status` with an `ErrorInfo` (domain `{domain}`, one of the reasons
below, metadata with the names and values that the message speaks of). INVALID_ARGUMENT has a `BadRequest` with the path
of each field that is wrong; UNAVAILABLE has a `RetryInfo` ({delay} s). INTERNAL is a defect of the service: its reason
is `INTERNAL`, and the metadata has an `incident` to look for in the service's log.
"""


@dataclass(frozen=True)
class Entry:
    """A message or an enum."""

    name: str
    """Within the package, as Job.State."""
    comment: str
    columns: tuple[str, str, str]
    rows: tuple[tuple[str, str, str], ...]


def main() -> None:
    """Write the page."""
    OUTPUT.write_text(reference(load(ROOT / "protos")))


def load(folder: Path) -> list[FileDescriptorProto]:
    """The descriptors of the API's protos below a folder, with their comments, by name of the file."""
    paths = sorted(str(path.relative_to(folder)) for path in (folder / "chainrule").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "api.binpb"
        arguments = ["-I.", "--include_source_info", f"--descriptor_set_out={output}"]
        command = [sys.executable, "-m", "grpc_tools.protoc", *arguments, *paths]
        subprocess.run(command, cwd=folder, check=True, timeout=120)
        return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def reference(files: Sequence[FileDescriptorProto]) -> str:
    """The page: services, then errors, then messages and enums by file."""
    entries = {file.name: list(_entries(file)) for file in files}
    links = _links(entry.name for found in entries.values() for entry in found)
    parts = [INTRODUCTION, _contents(files), "## Services\n"]
    for file in files:
        parts += _services(file, links)
    parts.append(ERRORS.format(domain=DOMAIN, delay=RETRY_DELAY_S))
    parts.append(_table(("code", "reason", "when"), error_rows()))
    parts.append("## Messages\n")
    for found in entries.values():
        for entry in found:
            rows = [(name, _linked(kind, links), text) for name, kind, text in entry.rows]
            parts += [f"### {entry.name}\n", f"{entry.comment}\n"]
            parts += [_table(entry.columns, rows)] if rows else []
    return "\n".join(parts)


def error_rows() -> list[tuple[str, str, str]]:
    """Code, reason and meaning of each error that a client can be told about, by code and reason."""
    kinds = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, errors.ServiceError)]
    rows = [(code_of(kind.__new__(kind)).name, f"`{kind.reason}`", _one_line(kind.__doc__ or "")) for kind in kinds]
    return sorted(row for row in rows if row[0] != "INTERNAL")


# --- services ----------------------------------------------------------------------------------------------------


def _contents(files: Sequence[FileDescriptorProto]) -> str:
    rows = [
        (
            f"[{service.name}](#{_anchor(service.name)})",
            ", ".join(f"[{m.name}](#{_anchor(m.name)})" for m in service.method),
        )
        for file in files
        for service in file.service
    ]
    return _table(("service", "methods"), rows)


def _services(file: FileDescriptorProto, links: Mapping[str, str]) -> Iterator[str]:
    comments = _comments(file)
    for i, service in enumerate(file.service):
        yield f"### {service.name}\n"
        yield f"{comments[(6, i)]}\n"
        for j, method in enumerate(service.method):
            yield f"#### {method.name}\n"
            yield f"{_signature(method, links)}\n"
            yield f"{comments[(6, i, 2, j)]}\n"


def _signature(method: MethodDescriptorProto, links: Mapping[str, str]) -> str:
    asked = ("stream of " if method.client_streaming else "") + _linked(_short(method.input_type), links)
    answered = ("stream of " if method.server_streaming else "") + _linked(_short(method.output_type), links)
    return f"{asked} → {answered}"


# --- messages ----------------------------------------------------------------------------------------------------


def _entries(file: FileDescriptorProto) -> Iterator[Entry]:
    comments = _comments(file)
    for i, message in enumerate(file.message_type):
        yield from _message(message, message.name, (4, i), comments)
    for i, enum in enumerate(file.enum_type):
        yield _enum(enum, enum.name, (5, i), comments)


def _message(message: DescriptorProto, name: str, place: Place, comments: Mapping[Place, str]) -> Iterator[Entry]:
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = tuple(
        (f"`{field.name}`", _type(field, message, maps), _one_line(comments.get((*place, 2, i), "")))
        for i, field in enumerate(message.field)
    )
    yield Entry(name, comments[place], ("field", "type", "what"), rows)
    for i, nested in enumerate(message.nested_type):
        if nested.name not in maps:
            yield from _message(nested, f"{name}.{nested.name}", (*place, 3, i), comments)
    for i, enum in enumerate(message.enum_type):
        yield _enum(enum, f"{name}.{enum.name}", (*place, 4, i), comments)


def _enum(enum: EnumDescriptorProto, name: str, place: Place, comments: Mapping[Place, str]) -> Entry:
    rows = tuple(
        (f"`{value.name}`", str(value.number), _one_line(comments.get((*place, 2, i), "")))
        for i, value in enumerate(enum.value)
    )
    return Entry(name, comments[place], ("value", "number", "what"), rows)


def _type(field: FieldDescriptorProto, message: DescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    name = _named(field)
    if (entry := maps.get(name.rpartition(".")[2])) is not None:
        key, value = (_named(part) for part in entry.field)
        return f"map of {key} to {value}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name} (one of `{message.oneof_decl[field.oneof_index].name}`)"
    return name


def _named(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _short(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


# --- text --------------------------------------------------------------------------------------------------------


def _comments(file: FileDescriptorProto) -> dict[Place, str]:
    return {
        tuple(place.path): "\n".join(line.strip() for line in place.leading_comments.strip().splitlines())
        for place in file.source_code_info.location
        if place.leading_comments
    }


def _links(names: Iterator[str]) -> dict[str, str]:
    """Where each name's section is. Raises ValueError if two sections would have the same anchor."""
    links: dict[str, str] = {}
    for name in names:
        if _anchor(name) in links.values():
            raise ValueError(f"two sections would be #{_anchor(name)}; name {name} differently")
        links[name] = _anchor(name)
    return links


def _linked(kind: str, links: Mapping[str, str]) -> str:
    return " ".join(f"[{word}](#{links[word]})" if word in links else word for word in kind.split(" "))


def _anchor(heading: str) -> str:
    return heading.lower().replace(".", "")  # as GitHub makes them


def _short(full_name: str) -> str:
    return full_name.removeprefix(f".{PACKAGE}.").removeprefix(".")


def _one_line(comment: str) -> str:
    return " ".join(comment.split())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
