"""A pickle makes plain values or an error; whatever else it tries, nothing runs."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.io import pickle_machine
from chainrule.engine.io.pickle_machine import Function, Refused, run
from tests.engine.io.assemble import Call, Global, Persistent, Raw, encode, legacy, pickled, storage, tensor, zipped

ROW = bytes(24)
SYSTEM = Global("os system")
DICT = Global("collections OrderedDict")


# -- plain values ------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None,
    *(True, False, 0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**62, -(2**100), 2**2000),
    *(0.0, -1.5, float("inf"), "", "x", "größe", "x" * 300, b"", b"ab", b"y" * 300),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [1, 2], {}, {"a": 1}, {"a": 1, 2: None, 1.5: [], b"k": ()}),
    {"nested": [{"a": ({"b": [1, (2,)]},)}] * 3},
    ["same"] * 2000,
]

# Protocol 2 has no bytes but a call that makes them.
ENCODE = {("_codecs", "encode"): Function("_codecs.encode", lambda arguments: str(arguments[0]).encode("latin-1"))}
ENCODE["__builtin__", "bytes"] = Function("bytes", lambda arguments: b"")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_plain_values_are_what_pickle_makes_of_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    made, end = run(b"before" + data + b"after", 6, ENCODE)
    assert repr(made) == repr(value)
    assert end == 6 + len(data)


def test_the_text_of_python_2_is_read() -> None:
    assert run(b"\x80\x02U\x03abc.", 0, {})[0] == "abc"
    assert run(b"\x80\x02T\x03\x00\x00\x00abc.", 0, {})[0] == "abc"


def test_what_is_shared_stays_shared() -> None:
    inner = [1]
    made, _ = run(pickle.dumps([inner, inner], 2), 0, {})
    assert isinstance(made, list)
    assert made[0] is made[1]


def test_names_mean_what_the_table_says() -> None:
    names = {("a", "double"): Function("a.double", lambda arguments: arguments * 2), ("a", "b"): Refused("no good")}
    assert run(pickled(Call(Global("a double"), (1, 2))), 0, names)[0] == (1, 2, 1, 2)
    stacked = b"\x80\x04" + encode("a") + encode("double") + b"\x93" + encode((1,)) + b"R."
    assert run(stacked, 0, names)[0] == (1, 1)
    with pytest.raises(cr.FormatError, match=r"has no good \(a\.b\)"):
        run(pickled(Global("a b")), 0, names)


# -- code --------------------------------------------------------------------------------------------------------------


def shell(canary: Path) -> str:
    return f"touch {canary}"


def called(function: str, *arguments: Any) -> Call:
    return Call(Global(function), arguments)


# name: (what makes the pickle of a canary's path, what the error says)
RUNNING: dict[str, tuple[Callable[[Path], Any], str]] = {
    "os.system": (lambda c: called("os system", shell(c)), r"os\.system"),
    "posix.system": (lambda c: called("posix system", shell(c)), r"posix\.system"),
    "subprocess": (lambda c: called("subprocess check_call", ["touch", str(c)]), r"subprocess\.check_call"),
    "eval": (lambda c: called("builtins eval", f"open({str(c)!r}, 'w')"), r"builtins\.eval"),
    "eval by its old name": (lambda c: called("__builtin__ eval", f"open({str(c)!r}, 'w')"), r"__builtin__\.eval"),
    "exec": (lambda c: called("builtins exec", f"open({str(c)!r}, 'w')"), r"builtins\.exec"),
    "open": (lambda c: called("builtins open", str(c), "w"), r"builtins\.open"),
    "__import__ and getattr": (
        lambda c: Call(called("builtins getattr", called("builtins __import__", "os"), "system"), (shell(c),)),
        r"builtins\.getattr",
    ),
    "a method of a value": (
        lambda c: Call(called("builtins getattr", called("pathlib Path", str(c)), "touch"), ()),
        r"builtins\.getattr",
    ),
    "STACK_GLOBAL": (
        lambda c: Raw(b"\x80\x04" + encode("os") + encode("system") + b"\x93" + encode((shell(c),)) + b"R"),
        r"os\.system",
    ),
    "STACK_GLOBAL with dots": (
        lambda c: Raw(
            b"\x80\x04" + encode("collections") + encode("_sys.modules.__getitem__") + b"\x93" + encode(("os",)) + b"R0"
            b"c" + b"os\nsystem\n" + encode((shell(c),)) + b"R"
        ),
        r"collections\._sys\.modules\.__getitem__",
    ),
    "INST": (lambda c: Raw(b"(" + encode(shell(c)) + b"ios\nsystem\n"), "opcode INST"),
    "OBJ": (lambda c: Raw(b"(cos\nsystem\n" + encode(shell(c)) + b"o"), r"os\.system"),
    "NEWOBJ": (
        lambda c: Raw(b"cbuiltins\nlist\n" + encode((Raw(encode(Global("builtins map")) + encode((SYSTEM, [shell(c)]))
                                                          + b"\x81"),)) + b"R"),
        r"builtins\.list",
    ),
    "a state": (
        lambda c: Call(Call(Global("functools partial"), (SYSTEM,), (SYSTEM, (shell(c),), {}, {})), ()),
        r"functools\.partial",
    ),
    "after a tensor": (lambda c: [tensor((6,), (1,)), called("os system", shell(c))], r"os\.system"),
    "as a hook": (lambda c: tensor((6,), (1,), hooks=called("os system", shell(c))), r"os\.system"),
    "as a key": (lambda c: {called("os system", shell(c)): 1}, r"os\.system"),
    "as a persistent id": (lambda c: Persistent(called("os system", shell(c))), r"os\.system"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNNING)
def test_what_would_run_code_runs_none(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    make, message = RUNNING[name]
    data = pickled(make(canary))
    for file in (zipped(data, {"0": ROW}), legacy(data, {"0": (6, ROW)}), data):
        with pytest.raises(cr.FormatError, match=message if file is not data else None):
            cr.io.load_pth(file)
    with pytest.raises(cr.FormatError):
        run(data, 0, {})
    assert not canary.exists()


@pytest.mark.parametrize("name", [name for name in RUNNING if not name.startswith(("after", "as a"))])
def test_the_same_bytes_do_run_under_pickle(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(pickled(RUNNING[name][0](canary)))
    assert canary.exists()


ORDERED = Call(DICT, ())
FROM_TYPE = Global("torch._tensor _rebuild_from_type_v2")
TENSOR = Global("torch Tensor")
PARAMETER = Global("torch.nn.parameter Parameter")
REBUILD = Global("torch._utils _rebuild_tensor_v2")

REFUSED: dict[str, tuple[Any, str]] = {
    # names that PyTorch's own files, or attacks on its reader, have
    **{
        name: (called(name.replace(":", " "), "x"), f"names {name.replace(':', '.')}, which is neither read nor run")
        for name in (
            *("torch:load", "torch.hub:load", "torch.storage:_load_from_bytes", "torch.serialization:_get_layout"),
            *("torch._utils:_import_dotted_name", "torch._utils:_rebuild_wrapper_subclass", "torch:FloatTensor"),
            *("torch._utils:_rebuild_device_tensor_from_numpy", "numpy:load", "numpy:memmap", "copyreg:_reconstructor"),
            *("collections:namedtuple", "collections:defaultdict", "builtins:bytearray", "builtins:set"),
            *("functools:partial", "_codecs:open", "operator:attrgetter", "torch:float8_e5m2"),
            "chainrule.engine.io:save_file",
        )
    },
    "a name with a newline in it": (Raw(b"\x8c\x02os\x8c\x06a\x1b[31m\x93"), r"names 'os.a\\x1b\[31m'"),
    "a name that is a number": (Raw(b"K\x01\x8c\x01a\x93"), r"names 1\.'a'"),
    "a very long name": (Raw(b"c" + b"x" * 300 + b"\nb\n"), "a very long one"),
    "a name without an end": (Raw(b"cos"), "without an end"),
    # opcodes
    "NEWOBJ of a function": (Raw(encode(DICT) + b")\x81"), r"calls the function collections\.OrderedDict at byte 29"),
    "NEWOBJ of a value": (Raw(b"N)\x81"), "calls None at byte 5, which is no class"),
    "NEWOBJ of a name": (Raw(b"csubprocess\nPopen\n)\x81"), r"names subprocess\.Popen"),
    "REDUCE of a class": (Call(PARAMETER, ()), r"calls the class torch\.nn\.parameter\.Parameter at byte"),
    "a Parameter of nothing": (Raw(encode(PARAMETER) + b")\x81"), "a parameter is made of"),
    "a Parameter of text": (Raw(encode(PARAMETER) + encode(("x",)) + b"\x81"), "a parameter is made of 'x'"),
    "a Parameter with hooks": (
        Raw(encode(PARAMETER) + encode((tensor((6,), (1,)),)) + b"\x81" + encode((True, False, {1: 2})) + b"b"),
        "has hooks",
    ),
    "NEWOBJ_EX": (Raw(encode(DICT) + b")}\x92"), "opcode NEWOBJ_EX"),
    "INST": (Raw(b"(icollections\nOrderedDict\n"), "opcode INST"),
    "OBJ": (Raw(b"(" + encode(DICT) + b"o"), "opcode OBJ"),
    "EXT1": (Raw(b"\x82\x01"), "opcode EXT1"),
    "EXT2": (Raw(b"\x83\x01\x00"), "opcode EXT2"),
    "EXT4": (Raw(b"\x84\x01\x00\x00\x00"), "opcode EXT4"),
    "PERSID": (Raw(b"Pstorage\n"), "opcode PERSID"),
    "NEXT_BUFFER": (Raw(b"\x97"), "opcode NEXT_BUFFER"),
    "BYTEARRAY8": (Raw(b"\x96" + b"\xff" * 8), "opcode BYTEARRAY8"),
    "no opcode": (Raw(b"\xff"), "opcode 0xff at byte 2"),
    # calls
    "a call of a string": (Call("os.system", ("x",)), r"calls 'os\.system' at byte"),
    "a call of a storage type": (Call(Global("torch FloatStorage"), (3,)), "calls a StorageType"),
    "a call of a dtype": (Call(Global("torch float32"), (3,)), r"calls a Float32DType"),
    "a call of a tensor": (Call(tensor((6,), (1,)), (3,)), "calls a ndarray"),
    "a call of a class": (Call(TENSOR, (3,)), "calls a TensorType"),
    "a call with a list": (Call(DICT, []), r"calls collections\.OrderedDict with a list"),
    "a call with nothing": (Raw(encode(DICT) + b"R"), "takes a value at byte"),
    "an OrderedDict of something": (Call(DICT, ([("a", 1)],)), "an OrderedDict is made of arguments"),
    "a Counter of text": (called("collections Counter", "aab"), "a Counter is made of 'aab'"),
    "a Counter of objects": (called("collections Counter", {"a": []}), "a Counter is made of a dict"),
    "a Size of text": (called("torch Size", "12"), "has the size '12'"),
    "a Size of nothing": (called("torch Size"), "made of 0 things"),
    "a device of numbers": (called("torch device", 3), "a torch.device is made of 3"),
    "a device of a long text": (called("torch device", "x" * 64, 3), r"a torch.device is made of 'xxx"),
    "bytes of an encoding": (called("_codecs encode", "ab", "rot13"), "bytes are made of 'ab', 'rot13'"),
    "bytes of a tensor": (called("_codecs encode", "ab", tensor((6,), (1,))), "bytes are made of 'ab', a ndarray"),
    "bytes of other letters": (called("_codecs encode", "\u0100", "latin1"), "bytes are made of"),
    # a tensor's class
    "a tensor made by encode": (Call(FROM_TYPE, (Global("_codecs encode"), TENSOR, ("a", "latin1"), {})), "of a class"),
    "a tensor made by itself": (Call(FROM_TYPE, (FROM_TYPE, TENSOR, (), {})), "a tensor of a class of its own"),
    "a tensor of the class str": (Call(FROM_TYPE, (REBUILD, "torch.Tensor", (), {})), "a tensor of a class of its own"),
    "a tensor of the class array": (Call(FROM_TYPE, (REBUILD, tensor((6,), (1,)), (), {})), "of a class of its own"),
    "a parameter of text": (called("torch._utils _rebuild_parameter", "x", True, None), "a parameter is made of 'x'"),
    "a parameter of nothing": (called("torch._utils _rebuild_parameter"), "a parameter is made of"),
    # states
    "a state of attributes": (Call(DICT, (), {"__class__": 1}), "gives a OrderedDict a state, which is not read"),
    "a state besides metadata": (Call(DICT, (), {"_metadata": {}, "__setstate__": 1}), "gives a OrderedDict a state"),
    "metadata that is none": (Call(DICT, (), {"_metadata": 3}), "gives a OrderedDict a state"),
    "a state of slots": (Call(DICT, (), (None, {"x": 1})), "gives a OrderedDict a state"),
    "a state of a dict": (Raw(b"}" + encode({"_metadata": {}}) + b"b"), "gives a dict a state"),
    "a state of a function": (Raw(encode(DICT) + encode({"_metadata": {}}) + b"b"), "gives the function collections"),
    "a state of a tensor": (Raw(encode(tensor((6,), (1,))) + encode({"_metadata": {}}) + b"b"), "gives a ndarray a"),
    # persistent ids
    "a module": (Persistent(("module", DICT, "file.py", "import os")), "a persistent id that is no storage"),
    "text as an id": (Persistent("storage"), "a persistent id that is no storage: 'storage'"),
    "a list as an id": (Persistent(["storage", 1, "0", "cpu", 6]), "a persistent id that is no storage"),
    "an id of a tensor": (Persistent((tensor((6,), (1,)), 1, "0", "cpu", 6)), "a persistent id that is no storage"),
    # what is left over
    "a function as a value": ([DICT], r"the function collections\.OrderedDict among its values"),
    "a storage as a value": ([storage()], "has a Storage among"),
    "a type as a value": ({"a": (TENSOR,)}, "has a TensorType among its values"),
    "a function in metadata": (Call(DICT, (), {"_metadata": {"a": DICT}}), r"collections\.OrderedDict among"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_else_a_pickle_has_is_refused_by_name(name: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(cr.FormatError, match=message):
        cr.io.load_pth(zipped(pickled(value), {"0": ROW}))
    with pytest.raises(cr.FormatError, match=message if "at byte" not in message else None):
        cr.io.load_pth(legacy(pickled(value), {"0": (6, ROW)}))


# -- malformed ---------------------------------------------------------------------------------------------------------

MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "wants 1 bytes at byte 0 and has 0"),
    "no end": (b"\x80\x02N", "wants 1 bytes"),
    "protocol 0": (b"\x80\x00N.", "protocol 0; 2 to 5"),
    "protocol 6": (b"\x80\x06N.", "protocol 6"),
    "no value": (b"\x80\x02.", "ends at byte 3 with 0 values"),
    "two values": (b"\x80\x02NN.", "ends at byte 5 with 2 values"),
    "an open mark": (b"\x80\x02N(.", "ends at byte 5"),
    "a tuple without mark": (b"\x80\x02Nt.", "without a mark"),
    "a value below the mark": (b"\x80\x02N(\x85t.", "takes a value at byte 5"),
    "a list below the mark": (b"\x80\x02](N(e.", "takes a value|where a list is wanted"),
    "an item without a list": (b"\x80\x02NNa.", "has None at byte 5 where a list is wanted"),
    "an item for a tuple": (b"\x80\x02)Na.", "has a tuple at byte"),
    "items for a dict": (b"\x80\x02}(NNe.", "has a dict at byte"),
    "a key for a list": (b"\x80\x02]NNs.", "where a dict or OrderedDict is wanted"),
    "a key without a value": (b"\x80\x02}(Nu.", "a key without a value"),
    "a list as a key": (b"\x80\x02}]Ns.", "has a list as a dict's key"),
    "a tuple as a key": (b"\x80\x02})Ns.", "has a tuple as a dict's key"),
    "a large key": (b"\x80\x02}\x8a\x08" + bytes(7) + b"\x10Ns.", "1152921504606846976 as a dict's key"),
    "a memo of nothing": (b"\x80\x02q\x00.", "takes a value"),
    "a recall of nothing": (b"\x80\x02h\x07.", "recalls value 7"),
    "a far recall of nothing": (b"\x80\x02j\xff\xff\xff\xff.", "recalls value 4294967295"),
    "text that is not UTF-8": (b"\x80\x02\x8c\x02\xff\xfe.", "not UTF-8"),
    "a state": (b"\x80\x02}}b.", "a state at byte 5, which is not read"),
    "a persistent id": (b"\x80\x02NQ.", "a persistent id at byte 4"),
    # lengths
    "long text": (b"\x80\x02X\xff\xff\xff\xffab.", "wants 4294967295 bytes at byte 7 and has 3"),
    "very long text": (b"\x80\x04\x8d" + b"\xff" * 8 + b"ab.", f"wants {2**64 - 1} bytes"),
    "negative text": (b"\x80\x02T\xff\xff\xff\xffab.", "a text of -1 bytes"),
    "long bytes": (b"\x80\x03B\xff\xff\xff\xffab.", "wants 4294967295 bytes"),
    "very long bytes": (b"\x80\x04\x8e" + b"\xff" * 8 + b"ab.", f"wants {2**64 - 1} bytes"),
    "a long integer": (b"\x80\x02\x8b\x00\x01\x00\x00" + bytes(256) + b".", "an integer of 256 bytes; up to 255"),
    "a very long integer": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "an integer of 2147483647 bytes"),
    "a negative integer": (b"\x80\x02\x8b\xff\xff\xff\xff.", "an integer of -1 bytes"),
    "a long frame": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", f"a frame of {2**64 - 1} bytes at byte 11, where 2"),
    "a cut number": (b"\x80\x02G\0\0\0.", "wants 8 bytes"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles_are_refused(name: str) -> None:
    data, message = MALFORMED[name]
    with pytest.raises(cr.FormatError, match=message):
        run(data, 0, {})


def test_a_memo_index_costs_nothing() -> None:
    tracemalloc.start()
    try:
        assert run(b"\x80\x02Nr\xff\xff\xff\xff.", 0, {})[0] is None
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_containers_and_memo_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_CONTAINERS", 10)
    monkeypatch.setattr(pickle_machine, "MAX_MEMO", 20)
    assert run(b"\x80\x02(" + b"}" * 9 + b"t.", 0, {})[0] == ({},) * 9
    with pytest.raises(cr.FormatError, match="makes more than 10 containers"):
        run(b"\x80\x02(" + b"}" * 10 + b"t.", 0, {})
    assert run(b"\x80\x04N" + b"\x94" * 20 + b".", 0, {})[0] is None
    with pytest.raises(cr.FormatError, match="remembers more than 20 values"):
        run(b"\x80\x04N" + b"\x94" * 21 + b".", 0, {})


# -- structures that would hurt who walks them -------------------------------------------------------------------------


def laughs(levels: int) -> bytes:
    """A list of ten times the list before it, and so on: 10 ** levels when walked."""
    lists = [b"](" + (b"h%c" % (level - 1) * 10 if level else b"") + b"eq%c" % level for level in range(levels)]
    return b"(" + b"".join(lists) + b"t"


STRUCTURES = {
    "deep lists": (Raw(b"]" * 100_000 + b"a" * 99_999), "nested more than 100 deep"),
    "deep tuples": (Raw(b")" + b"\x85" * 100_000), "nested more than 100 deep"),
    "deep dicts": (Raw(b"}N" * 100_000 + b"N" + b"s" * 100_000), "nested more than 100 deep"),
    "101 lists": (Raw(b"]" * 101 + b"a" * 100), "nested more than 100 deep"),
    "a list in itself": (Raw(b"]q\x00h\x00a"), "contains itself"),
    "a dict in a tuple in itself": (Raw(b"}q\x00Nh\x00\x85s"), "contains itself"),
    "metadata in itself": (
        Raw(encode(Call(DICT, ())) + b"q\x00" + b"}" + encode("_metadata") + b"h\x00sb"),
        "contains itself",
    ),
    "a billion laughs": (
        Raw(laughs(9)),
        "repeats its values within one another",
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_that_cannot_be_walked_are_refused(name: str) -> None:
    value, message = STRUCTURES[name]
    data = pickled(value)
    for file in (zipped(data, {}), legacy(data, {})):
        with pytest.raises(cr.FormatError, match=message):
            cr.io.load_pth(file)


def test_a_hundred_lists_are_read() -> None:
    made = cr.io.load_pth(zipped(pickled(Raw(b"]" * 100 + b"a" * 99)), {}))
    assert repr(made) == "[" * 100 + "]" * 100
