"""A machine for the part of the pickle language that plain data needs; it cannot run code.

Why not `pickle.Unpickler` with a strict `find_class`: its opcodes are written to reach whatever the callables given to
them reach. REDUCE calls, BUILD calls `__setstate__` or fills any `__dict__`, INST, OBJ and NEWOBJ make instances, EXT
looks in a registry of the process; `find_class` guards one door of these, and the C code bounds neither lengths nor
memo. Here a pickle can do what the table below has, and nothing else exists: a name is looked up in the caller's table
and never imported; REDUCE takes only a `Function` of that table and NEWOBJ only a `Class`, and these check their
arguments themselves; BUILD goes to the caller; no attribute is ever read or set. Protocols 2 to 5 are read. Nothing
recurses. A length is compared with the bytes that are left before they are taken, and the containers and the memo have
limits, so that memory stays a multiple of the pickle's length.

Source of the language: `pickletools` of the standard library, and https://peps.python.org/pep-3154/
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chainrule.engine.errors import FormatError

REMEDY = "save plain tensors, dicts, lists, strings and numbers: torch.save(model.state_dict(), path)"

MAX_CONTAINERS = 1 << 20
MAX_MEMO = 1 << 22
_MAX_NAME_BYTES = 256
_MAX_LONG_BYTES = 255
_HASHED_AS_ITSELF = 1 << 60  # larger integers share hashes, which makes a slow dict of many of them

Names = Mapping[tuple[str, str], object]


@dataclass(frozen=True, eq=False)
class Function:
    """What a pickle may call.

    Attributes:
        name: what the pickle calls it, for messages.
        call: takes the arguments as they were pickled; trusts none of them, and raises FormatError.
    """

    name: str
    call: Callable[[tuple[object, ...]], object]


class Class(Function):
    """What a pickle may make an instance of; `call` stands for its `__new__`."""


@dataclass(frozen=True)
class Refused:
    """A name that is known and not read, and why."""

    reason: str


def run(
    data: bytes,
    start: int,
    names: Names,
    *,
    persistent: Callable[[object], object] | None = None,
    build: Callable[[object, object], None] | None = None,
) -> tuple[object, int]:
    """The value of the pickle that starts at byte `start` of `data`, and the byte after the pickle.

    Args:
        names: what each (module, name) that the pickle may have means; a `Function` or `Class` may be called.
        persistent: the value of a persistent id.
        build: gives a state (second) to a value (first).

    Raises:
        FormatError: the pickle is malformed, cut short, too large, or has what is not read; the message says what.
    """
    machine = _Machine(data, start, names, persistent, build)
    while not machine.stopped:
        at = machine.at
        code = machine.take(1)[0]
        step = _steps.get(code)
        if step is None:
            known = _refused.get(code, f"{code:#04x}")
            raise FormatError(f"the pickle has the opcode {known} at byte {at}, which is not read; {REMEDY}")
        step(machine)
    return machine.stack[0], machine.at


class _Machine:
    """The state of a run: where it is in the bytes, the stack, the marks in it, and the memo."""

    def __init__(
        self,
        data: bytes,
        start: int,
        names: Names,
        persistent: Callable[[object], object] | None,
        build: Callable[[object, object], None] | None,
    ) -> None:
        self.data = data
        self.at = start
        self.names = names
        self.persistent = persistent
        self.build = build
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.containers = 0
        self.stopped = False

    # -- bytes ------------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        left = len(self.data) - self.at
        if count > left:
            raise FormatError(f"the pickle wants {count} bytes at byte {self.at} and has {left}; fetch the file again")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def line(self) -> str:
        """The text up to the next newline."""
        end = self.data.find(b"\n", self.at, self.at + _MAX_NAME_BYTES)
        if end < 0:
            raise FormatError(f"the pickle has a name without an end, or a very long one, at byte {self.at}")
        text = decode(self.take(end - self.at))
        self.at += 1
        return text

    # -- the stack --------------------------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise FormatError(f"the pickle takes a value at byte {self.at} that it has not made")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise FormatError(f"the pickle takes values at byte {self.at} without a mark")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def top(self, *kinds: type) -> object:
        """The value on top of the stack, of one of exactly these types."""
        value = self.pop()
        if type(value) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise FormatError(f"the pickle has {describe(value)} at byte {self.at} where a {wanted} is wanted")
        self.stack.append(value)
        return value

    def push_container(self, value: object) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise FormatError(f"the pickle makes more than {MAX_CONTAINERS} containers; {REMEDY}")
        self.stack.append(value)

    # -- the memo ---------------------------------------------------------------------------------------------------

    def memorize(self, index: int) -> None:
        if len(self.memo) >= MAX_MEMO:
            raise FormatError(f"the pickle remembers more than {MAX_MEMO} values; {REMEDY}")
        value = self.pop()
        self.stack.append(value)
        self.memo[index] = value

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise FormatError(f"the pickle recalls value {index} at byte {self.at}, which it has not remembered")
        self.stack.append(self.memo[index])


def describe(value: object) -> str:
    """A value in a few words, for messages."""
    if isinstance(value, Function):
        return f"the {type(value).__name__.lower()} {value.name}"
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."
    if isinstance(value, float) or value is None or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    return f"a {type(value).__name__}"


def decode(raw: bytes) -> str:
    """Text as pickles have it.

    Raises:
        FormatError: it is not UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the pickle has text that is not UTF-8: {raw[:40]!r}") from error


# -- opcodes -----------------------------------------------------------------------------------------------------------


def _protocol(machine: _Machine) -> None:
    protocol = machine.number("<B")
    if not 2 <= protocol <= 5:
        raise FormatError(f"the pickle has protocol {protocol}; 2 to 5 are read")


def _frame(machine: _Machine) -> None:
    size = machine.number("<Q")
    left = len(machine.data) - machine.at
    if size > left:
        raise FormatError(f"the pickle has a frame of {size} bytes at byte {machine.at}, where {left} are left")


def _stop(machine: _Machine) -> None:
    if len(machine.stack) != 1 or machine.marks:
        raise FormatError(f"the pickle ends at byte {machine.at} with {len(machine.stack)} values instead of one")
    machine.stopped = True


def _long(machine: _Machine, layout: str) -> None:
    size = machine.number(layout)
    if not 0 <= size <= _MAX_LONG_BYTES:
        raise FormatError(f"the pickle has an integer of {size} bytes; up to {_MAX_LONG_BYTES} are read")
    machine.push(int.from_bytes(machine.take(size), "little", signed=True))


def _text(machine: _Machine, layout: str) -> None:
    machine.push(decode(machine.take(_length(machine, layout))))


def _binary(machine: _Machine, layout: str) -> None:
    machine.push(machine.take(_length(machine, layout)))


def _length(machine: _Machine, layout: str) -> int:
    size = machine.number(layout)
    if size < 0:
        raise FormatError(f"the pickle has a text of {size} bytes at byte {machine.at}")
    return size


def _tuple_of(machine: _Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push_container(tuple(reversed(values)))


def _append(machine: _Machine) -> None:
    value = machine.pop()
    _list(machine).append(value)


def _extend(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    _list(machine).extend(values)


def _list(machine: _Machine) -> list[object]:
    target = machine.top(list)
    assert type(target) is list
    return target


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _dict(machine)[_key(key)] = value


def _set_items(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    target = _dict(machine)
    if len(values) % 2:
        raise FormatError(f"the pickle has a key without a value at byte {machine.at}")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[_key(key)] = value


def _dict(machine: _Machine) -> dict[object, object]:
    target = machine.top(dict, OrderedDict)
    assert isinstance(target, dict)
    return target


def _key(value: object) -> object:
    """A value that is a dict's key; hashing it can neither recurse nor be made slow."""
    plain = type(value) in (str, bytes, float, bool, type(None))
    if plain or (type(value) is int and abs(value) < _HASHED_AS_ITSELF):
        return value
    raise FormatError(f"the pickle has {describe(value)} as a dict's key; strings and numbers below 2**60 are read")


def _global(machine: _Machine, module: str, name: str) -> None:
    if (module, name) not in machine.names:
        full = f"{module}.{name}"
        shown = full if full.isprintable() else repr(full)
        raise FormatError(f"the pickle names {shown}, which is neither read nor run; {REMEDY}")
    meaning = machine.names[module, name]
    if isinstance(meaning, Refused):
        raise FormatError(f"the pickle has {meaning.reason} ({module}.{name})")
    machine.push(meaning)


def _line_global(machine: _Machine) -> None:
    module = machine.line()
    _global(machine, module, machine.line())


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise FormatError(f"the pickle names {describe(module)}.{describe(name)} at byte {machine.at}")
    _global(machine, module[:_MAX_NAME_BYTES], name[:_MAX_NAME_BYTES])


def _call(machine: _Machine, kind: type[Function]) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Function) or type(function) is not kind:
        wanted = kind.__name__.lower()
        raise FormatError(f"the pickle calls {describe(function)} at byte {machine.at}, which is no {wanted}; {REMEDY}")
    if type(arguments) is not tuple:
        raise FormatError(f"the pickle calls {function.name} with {describe(arguments)} instead of a tuple")
    machine.push_container(function.call(arguments))


def _build(machine: _Machine) -> None:
    state = machine.pop()
    target = machine.pop()
    if machine.build is None:
        raise FormatError(
            f"the pickle gives {describe(target)} a state at byte {machine.at}, which is not read; {REMEDY}"
        )
    machine.build(target, state)
    machine.push(target)


def _persistent_id(machine: _Machine) -> None:
    identity = machine.pop()
    if machine.persistent is None:
        raise FormatError(f"the pickle has a persistent id at byte {machine.at}, which is not read here")
    machine.push(machine.persistent(identity))


_steps: dict[int, Callable[[_Machine], None]] = {
    0x80: _protocol,
    0x95: _frame,
    ord("."): _stop,
    # values
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("K"): lambda machine: machine.push(machine.number("<B")),
    ord("M"): lambda machine: machine.push(machine.number("<H")),
    ord("J"): lambda machine: machine.push(machine.number("<i")),
    0x8A: lambda machine: _long(machine, "<B"),
    0x8B: lambda machine: _long(machine, "<i"),
    ord("G"): lambda machine: machine.push(struct.unpack(">d", machine.take(8))[0]),
    0x8C: lambda machine: _text(machine, "<B"),
    ord("X"): lambda machine: _text(machine, "<I"),
    0x8D: lambda machine: _text(machine, "<Q"),
    ord("U"): lambda machine: _text(machine, "<B"),  # a str of Python 2
    ord("T"): lambda machine: _text(machine, "<i"),
    ord("C"): lambda machine: _binary(machine, "<B"),
    ord("B"): lambda machine: _binary(machine, "<I"),
    0x8E: lambda machine: _binary(machine, "<Q"),
    # containers
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),
    ord(")"): lambda machine: machine.push(()),
    0x85: lambda machine: _tuple_of(machine, 1),
    0x86: lambda machine: _tuple_of(machine, 2),
    0x87: lambda machine: _tuple_of(machine, 3),
    ord("t"): lambda machine: machine.push_container(tuple(machine.pop_to_mark())),
    ord("]"): lambda machine: machine.push_container([]),
    ord("a"): _append,
    ord("e"): _extend,
    ord("}"): lambda machine: machine.push_container({}),
    ord("s"): _set_item,
    ord("u"): _set_items,
    # the memo
    ord("q"): lambda machine: machine.memorize(machine.number("<B")),
    ord("r"): lambda machine: machine.memorize(machine.number("<I")),
    0x94: lambda machine: machine.memorize(len(machine.memo)),
    ord("h"): lambda machine: machine.recall(machine.number("<B")),
    ord("j"): lambda machine: machine.recall(machine.number("<I")),
    # what the caller's tables decide
    ord("c"): _line_global,
    0x93: _stack_global,
    ord("R"): lambda machine: _call(machine, Function),
    0x81: lambda machine: _call(machine, Class),
    ord("b"): _build,
    ord("Q"): _persistent_id,
}

# Told by name, since who meets one of them may want to know what the file tried.
_refused = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x92: "NEWOBJ_EX",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    ord("P"): "PERSID",
    ord("0"): "POP",
    ord("1"): "POP_MARK",
    ord("2"): "DUP",
    ord("p"): "PUT",
    ord("g"): "GET",
    0x8F: "EMPTY_SET",
    0x90: "ADDITEMS",
    0x91: "FROZENSET",
    0x96: "BYTEARRAY8",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}
