"""Requests that no honest client makes: damaged bytes, fields out of range, streams in disorder."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import EncodeError, Message

from tests.server.rpc.whole_api import message_class, path

Field = Any
"""A FieldDescriptor, of which protobuf has two kinds."""
Pool = Mapping[str, Sequence[Any]]
"""Values that make sense, by the name of a field, or by "message.field" where they differ."""


@dataclass(frozen=True)
class Malformed:
    """A call."""

    method: MethodDescriptor
    messages: tuple[bytes, ...]
    """What is sent, one after the other."""
    how: str
    """What is wrong with it."""
    cancelled: bool = False
    """Whether it is given up after the last message, instead of ended."""

    def __str__(self) -> str:
        shown = ", ".join(f"{message[:200]!r} ({len(message)} bytes)" for message in self.messages[:4])
        return f"{path(self.method)}, {self.how}: {shown}"


class Requests:
    """Makes malformed requests, the same ones for the same seed.

    Args:
        pool: see `Pool`; a field that is not in it gets a value of its type.
    """

    def __init__(self, seed: int, pool: Pool) -> None:
        self._random = random.Random(seed)
        self._pool = pool

    def of(self, method: MethodDescriptor) -> Malformed:
        """A request for a method."""
        if method.client_streaming:
            return self._stream(method)
        how, make = self._random.choice(self._ways())
        return Malformed(method, (make(method),), how)

    def _ways(self) -> list[tuple[str, Callable[[MethodDescriptor], bytes]]]:
        return [
            ("damaged bytes", self.damaged),
            ("damaged bytes", self.damaged),
            ("fields out of range", self.out_of_range),
            ("fields out of range", self.out_of_range),
            ("fields out of range", self.out_of_range),
            ("text that is not UTF-8", self.not_utf8),
            ("nothing wrong", self.plausible_bytes),
        ]

    # --- valid ones --------------------------------------------------------------------------------------------

    def plausible_bytes(self, method: MethodDescriptor) -> bytes:
        """A request that may well be valid."""
        return self.plausible(method).SerializeToString()

    def plausible(self, method: MethodDescriptor) -> Message:
        """The same as a message."""
        message = message_class(method)()
        self._fill(message)
        return message

    def _fill(self, message: Message, depth: int = 0) -> None:
        fields: Sequence[Field] = message.DESCRIPTOR.fields
        for field in fields:
            if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
                continue
            if self._random.random() < 0.2 + 0.25 * depth:  # the more are set, the less likely are they to go together
                continue
            if field.message_type is None:
                self._put(message, field, self._sensible(field))
            elif field.name == "labels":
                message.labels["team"] = "vision"  # type: ignore[attr-defined]  # a message of some type
            elif not field.is_repeated and field.message_type.name != "Struct":
                child = getattr(message, field.name)
                child.SetInParent()
                self._fill(child, depth + 1)

    def _sensible(self, field: Field) -> Any:
        for name in (f"{field.containing_type.name}.{field.name}", field.name):
            if name in self._pool:
                return self._random.choice(self._pool[name])
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return b"abc" if field.type == FieldDescriptor.TYPE_BYTES else "abc"
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self._random.choice(field.enum_type.values).number
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        return self._random.choice((0, 1, 2, 5))

    def _put(self, message: Message, field: Field, value: Any) -> None:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    # --- damaged ones ------------------------------------------------------------------------------------------

    def damaged(self, method: MethodDescriptor) -> bytes:
        """Bytes of a valid request that are flipped, cut out, inserted or mixed with those of another."""
        content = bytearray(self.plausible_bytes(method))
        for _ in range(self._random.randint(1, 4)):
            self._random.choice((self._flip, self._cut, self._insert, self._splice))(content, method)
        return bytes(content)

    def _flip(self, content: bytearray, method: MethodDescriptor) -> None:
        if content:
            content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)

    def _cut(self, content: bytearray, method: MethodDescriptor) -> None:
        start = self._random.randint(0, len(content))
        del content[start : start + self._random.choice((1, 2, 8, len(content)))]

    def _insert(self, content: bytearray, method: MethodDescriptor) -> None:
        start = self._random.randint(0, len(content))
        content[start:start] = self._random.choice(
            (
                self._random.randbytes(self._random.randint(1, 16)),
                b"\xff" * 10,
                b"\x00" * 4,
                b"\x0a\xff\xff\xff\xff\x07",
            )
        )

    def _splice(self, content: bytearray, method: MethodDescriptor) -> None:
        other = self.plausible_bytes(method)
        start, end = sorted(self._random.randint(0, len(other)) for _ in range(2))
        at = self._random.randint(0, len(content))
        content[at : at + self._random.choice((0, end - start))] = other[start:end]

    def not_utf8(self, method: MethodDescriptor) -> bytes:
        """A valid request with one text field whose bytes are no text."""
        texts = [field for field in method.input_type.fields if field.type == FieldDescriptor.TYPE_STRING]
        content = self.plausible_bytes(method)
        if not texts:
            return content + self._random.randbytes(3)
        bad = self._random.choice((b"\xff\xfe", b"\xed\xa0\x80", b"jobs/\xc0\xaf", b"\xf4\x90\x80\x80"))
        return content + bytes([self._random.choice(texts).number << 3 | 2, len(bad)]) + bad

    # --- fields out of range -----------------------------------------------------------------------------------

    def out_of_range(self, method: MethodDescriptor) -> bytes:
        """A valid request of which one to three fields, at any depth, have values at or beyond their bounds."""
        message = self.plausible(method)
        for _ in range(self._random.randint(1, 3)):
            self._spoil(message)
        try:
            return message.SerializeToString()
        except EncodeError:  # nested deeper than protobuf itself allows
            return self.plausible_bytes(method)

    def _spoil(self, message: Message) -> None:
        """Give one field, of the message or of one within, a value that it should not have."""
        fields: Sequence[Field] = message.DESCRIPTOR.fields
        if not fields:
            return
        field = self._random.choice(fields)
        if field.message_type is None:
            self._spoil_scalar(message, field)
        elif _is_map(field):
            self._spoil_map(message, field)
        elif field.message_type.name == "Struct":
            self._spoil_struct(getattr(message, field.name))
        elif field.is_repeated:
            for _ in range(self._random.choice((1, 3))):
                self._spoil(getattr(message, field.name).add())
        else:
            child = getattr(message, field.name)
            child.SetInParent()
            self._spoil(child)

    def _spoil_scalar(self, message: Message, field: Field) -> None:
        if not field.is_repeated:
            setattr(message, field.name, self._hostile(field))
            return
        values = getattr(message, field.name)
        if self._random.random() < 0.2:
            values.extend([self._sensible(field)] * self._random.choice((2, 1001, 5000)))
        else:
            values.extend(self._hostile(field) for _ in range(self._random.randint(1, 3)))

    def _spoil_map(self, message: Message, field: Field) -> None:
        entry = field.message_type
        values = getattr(message, field.name)
        for i in range(self._random.choice((1, 2, 65))):
            key = self._hostile(entry.fields_by_name["key"]) if self._random.random() < 0.5 else f"k{i}"
            values[key] = self._hostile(entry.fields_by_name["value"])

    def _spoil_struct(self, struct: Any) -> None:
        way = self._random.randrange(4)
        if way == 0:
            for _ in range(self._random.choice((1, 10, 30))):  # three messages a level, and protobuf allows 100
                struct = struct.fields["deeper"].struct_value
                struct.SetInParent()
        elif way == 1:
            for i in range(2000):
                struct.fields[f"f{i}"].number_value = i
        else:
            name = self._random.choice([*self._pool["config"], "", "x" * 1000, "\0", "../x"])
            self._spoil_value(struct.fields[name])

    def _spoil_value(self, value: Any) -> None:
        way = self._random.randrange(5)
        if way == 0:
            value.number_value = self._random.choice(DOUBLES)
        elif way == 1:
            value.string_value = self._random.choice(self._texts())
        elif way == 2:
            value.null_value = 0
        elif way == 3:
            value.bool_value = True
        else:
            for _ in range(self._random.choice((0, 1, 500))):
                value.list_value.values.add().number_value = self._random.choice(DOUBLES)

    def _hostile(self, field: Field) -> Any:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return self._random.choice((b"", b"\xff\xfe\x00", bytes(100_000)))
            return self._random.choice(self._texts())
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self._random.choice((-1, 99, 2**31 - 1, -(2**31)))
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return True
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self._random.choice(DOUBLES)
        return self._random.choice(_INTEGERS[kind])

    def _texts(self) -> tuple[str, ...]:
        """Texts for any field: of no use, or of some other use than meant."""
        others = [value for values in self._pool.values() for value in values if isinstance(value, str)]
        return (*TEXTS, self._random.choice(others), "x" * self._random.choice((64, 129, 1001, 100_000)))

    # --- streams -----------------------------------------------------------------------------------------------

    def _stream(self, method: MethodDescriptor) -> Malformed:
        """A stream of requests of which something is wrong: what one says, or which comes when."""
        ways = (self._upload, self._mixed) if method.name == "WriteBlob" else (self._mixed,)
        messages = self._random.choice(ways)(method)
        way = self._random.randrange(6)
        if way == 0:
            return Malformed(method, (), "an empty stream", cancelled=self._random.random() < 0.3)
        if way == 1:
            self._random.shuffle(messages)
            return Malformed(method, tuple(messages), "a stream in disorder")
        if way == 2:
            return Malformed(method, (*messages, *messages), "a stream sent twice")
        if way == 3:
            return Malformed(method, tuple(messages[:-1]), "a stream that is given up", cancelled=True)
        if way == 4:
            return Malformed(method, (messages[0], *messages[1:2] * 200), "a stream that goes on and on")
        return Malformed(method, tuple(messages), "a stream of odd messages")

    def _mixed(self, method: MethodDescriptor) -> list[bytes]:
        return [self._random.choice(self._ways())[1](method) for _ in range(self._random.randint(1, 5))]

    def _upload(self, method: MethodDescriptor) -> list[bytes]:
        """An upload as it should be, or announced as what it is not."""
        content = self._random.randbytes(self._random.choice((0, 1, 100, 3000)))
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
        if self._random.random() < 0.5:
            digest = self._random.choice((digest.upper(), "0" * 64, "../" + digest, digest[:-1], *self._texts()))
            size = self._random.choice((size, size + 1, 0, -1, 2**63 - 1, 64 * 1024**3))
        kind: Any = message_class(method)
        first = kind(blob={"digest": digest, "size_bytes": size})
        first.write_offset_bytes = self._random.choice((0, 0, 0, 1, -1, 2**62))
        chunks = [kind(chunk=content[at : at + 1000]) for at in range(0, len(content), 1000)]
        for chunk in chunks:
            if self._random.random() < 0.1:
                chunk.chunk_crc32c = self._random.getrandbits(32)
        return [message.SerializeToString() for message in (first, *chunks)]


def _is_map(field: Field) -> bool:
    return bool(field.message_type.GetOptions().map_entry)


DOUBLES = (math.nan, math.inf, -math.inf, -1.0, -0.0, 1e308, 5e-324, 0.5, 2.0**53, 1e-3, 1_000_000.0)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-1, -(2**31), 2**31 - 1, 0, 65_537, 1_000_001),
    FieldDescriptor.CPPTYPE_INT64: (-1, -(2**63), 2**63 - 1, 0, 2**31, 64 * 1024**3 + 1),
    FieldDescriptor.CPPTYPE_UINT32: (2**32 - 1, 0, 2**31),
    FieldDescriptor.CPPTYPE_UINT64: (2**64 - 1, 2**63, 0, 2**53 + 1),
}
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "-",
    "models/",
    "/etc/passwd",
    "../../../etc/passwd",
    "models/../../x",
    "jobs/%2e%2e",
    "jobs/x/y",
    "models/m/versions/0",
    "models/m/versions/-1",
    "models/m/versions/99999999999999999999",
    "models/m/versions/1/versions/1",
    "datasets/\N{BOMB}",
    "\u202eright-to-left",
    "\ufeff",
    "ٱ" * 10,
    "٣",
    "9" * 30,
    "-1",
    "1e9",
    "'; DROP TABLE jobs; --",
    '"',
    "%s%n",
    "a AND",
    "((((" * 200,
    "NOT " * 500 + "state=RUNNING",
    'labels.x="' + "\\" * 99 + '"',
    "state=RUNNING OR " * 300 + "state=FAILED",
    "create_time>2026-13-45T00:00:00Z",
    "create_time desc,create_time desc",
    "name; drop",
    "*",
    "[!",
    "[" * 5000,
    "*" * 60 + "b",
    "config.epochs",
    "labels",
    "labels.\0",
    "name.name.name",
)
