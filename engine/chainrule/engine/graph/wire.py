"""A look at the bytes of a protobuf message before it is parsed: parsing multiplies what it is given.

Two bytes can be an empty message, which takes some two hundred in memory, and one byte a number that takes thirty. So
fields and such numbers are counted, and the depth of messages in messages is measured, on the bytes themselves and
without allocating anything.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.limits import Limits

_Table = dict[int, Any]  # number of a field: the table of its message, if it is one, or one of these
_TEXT, _VARYING, _FLOATS = object(), object(), object()
"""A text; many numbers of one byte or more each; many floats that become Python's."""
_PIECE = 2**20


def scan(content: bytes, descriptor: Any, limits: Limits) -> None:
    """Look through a message; nothing is kept.

    Raises:
        GraphError: it is cut short or malformed, has a text that is none, or has more fields or more depth than the
            limits allow, or more numbers.
    """
    numbers = 0
    stack: list[tuple[int, _Table]] = []  # where each message around ends, and its table
    table, position, end, fields = _table(descriptor), 0, len(content), 0
    while True:
        while position == end:
            if not stack:
                return
            end, table = stack.pop()
        key, position = _varint(content, position, end)
        fields += 1
        if fields > limits.fields:
            raise GraphError(f"the file has more than {limits.fields} fields, which is the limit")
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, position = _varint(content, position, end)
        elif kind == 2:
            length, position = _varint(content, position, end)
            if length > end - position:
                raise _malformed(position, f"a field of {length} bytes where {end - position} are left")
            inner = table.get(number)
            if not callable(inner):
                if inner is _TEXT:
                    _check_text(content, position, length)
                elif inner is not None:
                    numbers += length // 4 if inner is _FLOATS else _varints(content, position, length)
                    if numbers > limits.numbers:
                        raise GraphError(f"the file lists more than {limits.numbers} numbers, which is the limit")
                position += length
                continue
            if len(stack) >= limits.depth:
                raise GraphError(f"the file nests messages deeper than {limits.depth}, which is the limit")
            stack.append((end, table))
            table, end = inner(), position + length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
            if position > end:
                raise _malformed(position, "a number that is cut short")
        else:
            raise _malformed(position, f"a field of wire type {kind}")


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise _malformed(position, "a number that does not end")


def _varints(content: bytes, position: int, length: int) -> int:
    """How many numbers of varying length are in so many bytes: each ends with a byte below 128."""
    count = 0
    for start in range(position, position + length, _PIECE):
        size = min(_PIECE, position + length - start)
        count += int(np.count_nonzero(np.frombuffer(content, np.uint8, size, start) < 128))
    return count


def _check_text(content: bytes, position: int, length: int) -> None:
    """Protobuf hands out what is no UTF-8 as bytes, where everybody expects a text."""
    try:
        str(memoryview(content)[position : position + length], "utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(position + error.start, "a text that is not UTF-8") from error


def _malformed(position: int, what: str) -> GraphError:
    return GraphError(f"these bytes are no ONNX model: {what}, at byte {position}; export the file again")


@cache
def _table(descriptor: Any) -> _Table:
    messages = {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}
    others = {field.number: _kind(field) for field in descriptor.fields}
    return others | {number: (lambda message=message: _table(message)) for number, message in messages.items()}


def _kind(field: Any) -> object:
    if field.type == field.TYPE_STRING:
        return _TEXT
    if field.containing_type.name == "AttributeProto" and field.type == field.TYPE_FLOAT:
        return _FLOATS  # those of a tensor go into its array
    return _VARYING if field.type in (field.TYPE_INT64, field.TYPE_INT32, field.TYPE_UINT64) else None
