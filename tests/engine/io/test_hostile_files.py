"""No file makes its reader look outside its storages, use much more memory than its size, or fail in other ways."""

from __future__ import annotations

import io as streams
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from chainrule.engine import io
from chainrule.engine.io.pickle_machine import run
from tests.engine.io.assemble import Call, Global, Raw, encode, legacy, pickled, storage, tensor, zipped

DATA = Path(__file__).parent / "data"
ZIP = (DATA / "state_dict.pth").read_bytes()
LEGACY = (DATA / "state_dict_legacy.pth").read_bytes()
ROW = np.arange(6, dtype=np.float32).tobytes()
DICT = Global("collections OrderedDict")
SMALL_ZIP = zipped(pickled({"w": tensor((2, 3), (3, 1)), "n": 3}), {"0": ROW})
SMALL_LEGACY = legacy(pickled({"w": tensor((2, 3), (3, 1)), "n": 3}), {"0": (6, ROW)})


@contextmanager
def at_most(max_bytes: int) -> Iterator[None]:
    """Fails if more memory is in use at once, beyond what was before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= max_bytes
    finally:
        tracemalloc.stop()


# -- tensors outside their storages ------------------------------------------------------------------------------------

NO_SIZES: list[Any] = [(-1,), (2**62,), (2**63 - 1,), (2**63,), (2**64,), (-(2**63),), (1, -1), (True,), (1.0,)]
NO_SIZES += [("1",), (None,), ((1,),), [1], 1, "1", None]

OUTSIDE: dict[str, tuple[Any, str]] = {
    "one element too many": (tensor((7,), (1,)), "size \\(7,\\), .* in a storage of 6 float32 ends at element 7"),
    "an offset of all": (tensor((1,), (1,), 6), "ends at element 7, outside"),
    "an offset beyond": (tensor((), (), 2**40), "ends at element 1099511627777, outside"),
    "a stride too long": (tensor((2, 3), (4, 1)), "ends at element 7, outside"),
    "a far stride": (tensor((2,), (2**61,)), "ends at element 2305843009213693953, outside"),
    "a large size": (tensor((2**59,), (1,)), "ends at element 576460752303423488, outside"),
    "sizes that multiply to 2**64": (tensor((2**32, 2**32), (0, 0)), "is too large"),
    "sizes that multiply to 0 mod 2**64": (tensor((2**22, 2**21, 2**21), (1, 1, 1)), "is too large"),
    "no elements of a large size": (tensor((0, 2**61), (1, 1)), "is too large"),
    "no elements of large sizes": (tensor((2**40, 0, 2**40), (1, 1, 1)), "is too large"),
    **{f"size {value!r}": (tensor(value, (1,)), "a tensor has the size") for value in NO_SIZES},
    **{f"stride {value!r}": (tensor((1,), value), "a tensor has the stride") for value in NO_SIZES},
    **{
        f"offset {value!r}": (tensor((1,), (1,), value), "and offset")
        for value in (-1, -6, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), True, 0.0, "0", None, (0,))
    },
    "sizes without strides": (tensor((2, 3), (1,)), "has size \\(2, 3\\), stride \\(1,\\)"),
    "65 dimensions": (tensor((1,) * 65, (1,) * 65), "up to 64 numbers"),
    "a tensor instead of a storage": (tensor((1,), (1,), of=tensor((1,), (1,))), "is made of a ndarray; a typed"),
    "a number instead of a storage": (tensor((1,), (1,), of=3), "is made of 3; a typed storage"),
    "hooks": (tensor((1,), (1,), hooks={"a": 1}), "has hooks"),
    "a tensor as hooks": (tensor((1,), (1,), hooks=tensor((2,), (1,))), "has hooks"),
    "a negated view": (tensor((1,), (1,), metadata=({"neg": True},)), "conjugated or negated"),
    "metadata of a tensor": (tensor((1,), (1,), metadata=({"neg": tensor((2,), (1,))},)), "conjugated or negated"),
    "nothing": (Call(Global("torch._utils _rebuild_tensor_v2"), ()), "made of 0 things; 6 or 7"),
    "nothing, the oldest way": (Call(Global("torch._utils _rebuild_tensor"), ()), "made of 0 things; 4"),
    "nothing, the newest way": (Call(Global("torch._utils _rebuild_tensor_v3"), ()), "made of 0 things; 7 or 8"),
    "bytes without a dtype": (
        tensor((1,), (1,), of=storage(kind="torch.storage UntypedStorage", count=24)),
        "a tensor without dtype",
    ),
    "a dtype for a typed storage": (
        Call(Global("torch._utils _rebuild_tensor_v3"), (storage(), 0, (1,), (1,), False, None, Global("torch int64"))),
        "a tensor of dtype a Int64DType is made of a Storage; bytes are wanted",
    ),
    "a wide dtype in few bytes": (
        Call(
            Global("torch._utils _rebuild_tensor_v3"),
            (
                storage(kind="torch.storage UntypedStorage", count=24),
                *(0, (4,), (1,), False, None, Global("torch uint64")),
            ),
        ),
        "in a storage of 3 uint64 ends at element 4",
    ),
    # storages
    "a storage of other size": (tensor((1,), (1,), of=storage(count=5)), "has 24 bytes; 5 float32 are|has 6 elem"),
    "a storage of 2**40": (tensor((1,), (1,), of=storage(count=2**40)), "has 24 bytes; 1|more than is left"),
    "a storage of 2**62": (tensor((1,), (1,), of=storage(count=2**62)), "size 4611686018427387904; two short strings"),
    "a storage of -1": (tensor((1,), (1,), of=storage(count=-1)), "size -1; two short strings"),
    "a storage of True": (tensor((1,), (1,), of=storage(count=True)), "size True; two short strings"),
    "a storage with a number": (tensor((1,), (1,), of=storage(key=0)), "has key 0"),
    "a storage of a long name": (tensor((1,), (1,), of=storage("k" * 256)), r"has key 'kkk.*'\.\.\., location 'cpu'"),
    "a storage of another type": (tensor((1,), (1,), of=storage(kind="torch float32")), "has the type a Float32DType"),
    "a storage without data": (tensor((1,), (1,), of=storage(location="meta")), "on device 'meta'"),
    "a storage that is not there": (tensor((1,), (1,), of=storage("../1")), "no entry 'archive/data/../1'|for no"),
    "a storage of two sizes": (
        [tensor((1,), (1,)), tensor((1,), (1,), of=storage(count=3))],
        "'0' is told to be 3 of float32 and 6 of float32",
    ),
    "a storage of two types": (
        [tensor((1,), (1,)), tensor((1,), (1,), of=storage(kind="torch IntStorage"))],
        "'0' is told to be 6 of int32 and 6 of float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_tensors_outside_their_storages_are_refused(name: str) -> None:
    value, message = OUTSIDE[name]
    for file in (zipped(pickled(value), {"0": ROW}), legacy(pickled(value), {"0": (6, ROW)})):
        with at_most(300_000), pytest.raises(cr.FormatError, match=message):
            io.load_pth(file)


# -- files much smaller than what they tell ----------------------------------------------------------------------------


def test_expanded_tensors_show_no_more_than_the_file_has() -> None:
    for size in [(10**9,), (2, 10**9), (1000, 1000), (2000, 2)]:
        with at_most(300_000), pytest.raises(cr.FormatError, match=r"which is expanded; save it \.contiguous"):
            io.load_pth(zipped(pickled(tensor(size, (0,) * len(size))), {"0": ROW}))


def test_many_expanded_tensors_show_no_more_than_the_file_has_together() -> None:
    one = encode(tensor((50,), (0,))) + b"q\x00"
    again = encode(tensor((50,), (0,)))
    few = Raw(b"(" + one + again + b"t")
    many = Raw(b"(" + one + again.replace(encode(storage()), b"h\x01") * 100 + b"t")
    many = Raw(many.code.replace(encode(storage()), encode(storage()) + b"q\x01", 1))
    assert [x.tolist() for x in io.load_pth(zipped(pickled(few), {"0": ROW}))] == [[0.0] * 50] * 2
    with pytest.raises(cr.FormatError, match="far beyond the file's own size"):
        io.load_pth(zipped(pickled(many), {"0": ROW}))


@pytest.mark.parametrize(
    ("value", "again"),
    [
        ("x" * 100_000, encode(Global("_codecs encode")) + b"h\x00" + encode("latin1") + b"\x86R"),
        ({i: i for i in range(2000)}, encode(Global("collections Counter")) + b"h\x00\x85R"),
    ],
    ids=["bytes", "counters"],
)
def test_values_are_not_copied_again_and_again(value: object, again: bytes) -> None:
    data = zipped(pickled(Raw(b"(" + encode(value) + b"q\x00" + again * 500 + b"t")), {})
    with at_most(40 * len(data)), pytest.raises(cr.FormatError, match="far beyond the file's own size"):
        io.load_pth(data)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_bombs_are_not_unpacked(compression: int) -> None:
    pickle = pickled(tensor((25_000_000,), (1,), of=storage(count=25_000_000)))
    data = zipped(pickle, {"0": bytes(100_000_000)}, compression=compression)
    with at_most(300_000), pytest.raises(cr.FormatError, match=r"is compressed, .* unpack the archive"):
        io.load_pth(data)


def test_an_archive_in_an_archive_is_bytes() -> None:
    inner = zipped(pickled(1), {"0": bytes(1000)})
    pickle = pickled(tensor((len(inner),), (1,), of=storage(kind="torch ByteStorage", count=len(inner))))
    assert io.load_pth(zipped(pickle, {"0": inner})).tobytes() == inner


def test_many_storages_of_a_legacy_file_are_no_larger_than_it() -> None:
    many = [tensor((1,), (1,), of=storage(str(i), count=500)) for i in range(500)]
    data = legacy(pickled(many), {"0": (6, ROW)})
    with at_most(30 * len(data)), pytest.raises(cr.FormatError, match="more than is left of the file"):
        io.load_pth(data)


def test_what_costs_most_costs_a_bounded_multiple_of_the_file() -> None:
    for code in (
        b"}",
        b"]",
        b"}\x94",
        b"(" * 2,
        b")\x85",
        encode(Call(Global("collections OrderedDict"), ())),
        b"U\x02ab",
    ):
        data = zipped(pickled(Raw(b"(" + code * (20_000 // len(code)) + b"t")), {})
        with at_most(400 * len(data)):
            try:
                io.load_pth(data)
            except cr.FormatError:
                assert code == b"(" * 2


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"byteorder": b"middle"}, "byte order b'middle'; little or big"),
        ({"byteorder": b"x" * 10_000}, "byte order b'xxxxxxxxxxxxxxxx'; little"),
        ({"version": b"11"}, "version b'11'; up to 10"),
        ({"version": b""}, "version b''"),
        ({"version": "²".encode()}, "version"),
        ({"constants.pkl": b""}, "a TorchScript archive"),
        ({"../other/data.pkl": b""}, None),
        ({"data.pkl": pickled(1) + b"x"}, "the pickle has 1 bytes after its end"),
        ({"data.pkl": b""}, "wants 1 bytes at byte 0"),
    ],
)
def test_archives_of_another_kind_are_refused(records: Mapping[str, bytes], message: str | None) -> None:
    data = zipped(pickled(1), {}, records=records)
    if message is None:
        assert io.load_pth(data) == 1  # nothing is unpacked to a path, so a name cannot lead anywhere
        return
    with pytest.raises(cr.FormatError, match=message):
        io.load_pth(data)


def test_untyped_storages_of_the_other_byte_order_are_refused() -> None:
    of = storage(kind="torch.storage UntypedStorage", count=24)
    wide = Call(Global("torch._utils _rebuild_tensor_v3"), (of, 0, (1,), (1,), False, None, Global("torch uint16")))
    with pytest.raises(cr.FormatError, match="untyped and of the other byte order"):
        io.load_pth(zipped(pickled(wide), {"0": ROW}, records={"byteorder": b"big"}))


@pytest.mark.parametrize("names", [[], ["data.pkl"], ["a/b/data.pkl"], ["a/data.pkl", "b/data.pkl"], ["document.xml"]])
def test_archives_without_one_pickle_are_refused(names: list[str]) -> None:
    file = streams.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, pickled(1))
    data = file.getvalue()
    with pytest.raises(cr.FormatError, match=r"not a file of torch\.save"):
        io.load_pth(data)


# -- legacy files ------------------------------------------------------------------------------------------------------

ONE = {"w": tensor((6,), (1,))}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickled({"a": 1}), "a pickle of a dict, not a file of torch.save"),
        (pickled(1001), "a pickle of 1001, not a file of torch.save"),
        (SMALL_LEGACY.replace(b"M\xe9\x03.", b"M\xea\x03.", 1), "protocol 1002; 1001 is read"),
        (legacy(pickled(ONE), {"0": (6, ROW)}, little_endian=False), "from a big-endian machine"),
        (legacy(pickled(ONE), {"0": (6, ROW)}, little_endian=None), "from a big-endian machine"),
        (legacy(pickled(ONE), {"0": (6, ROW)}, keys=[]), "order of its 1 storages"),
        (legacy(pickled(ONE), {"0": (6, ROW)}, keys="0"), "order of its 1 storages"),
        (legacy(pickled(ONE), {"0": (6, ROW)}, keys=[0]), "order of its 1 storages"),
        (legacy(pickled(ONE), {"1": (6, ROW)}), "storage '1' twice, or for no tensor"),
        (legacy(pickled([tensor((6,), (1,)), tensor((6,), (1,), of=storage("1"))]), {"0": (6, ROW)}, keys=["0", "0"]),
         "storage '0' twice"),
        (legacy(pickled(ONE), {"0": (5, ROW)}), "has 5 elements .* 6 float32 are wanted"),
        (legacy(pickled(ONE), {"0": (-1, ROW)}), "has -1 elements"),
        (legacy(pickled(ONE), {"0": (2**62, ROW)}), "has 4611686018427387904 elements"),
        (legacy(pickled(ONE), {"0": (6, ROW)}) + b"x", "1 bytes after its last storage"),
        (legacy(pickled(tensor((1,), (1,), of=Raw(encode(storage())[:-2] + b"(NK\x00K\x06ttQ"))), {"0": (6, ROW)}),
         "part of another"),
    ],
)  # fmt: skip
def test_legacy_files_that_contradict_themselves_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(cr.FormatError, match=message):
        io.load_pth(data)


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SMALL_ZIP, SMALL_LEGACY, ZIP, LEGACY], ids=["zip", "legacy", "torch", "torch legacy"])
def test_every_cut_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(cr.FormatError):
            io.load_pth(data[:end])


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(ZIP[:-1])
    with pytest.raises(cr.FormatError, match=r"cut\.pth: a zip archive without its end"):
        io.load_pth(path)


FUZZ = settings(max_examples=300, deadline=None, derandomize=True, database=None)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4)


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    copy = bytearray(data)
    for at, value in changes:
        copy[at % len(copy)] = value
    return bytes(copy)


def is_equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(a[key].tobytes() == b[key].tobytes() for key in a)


@FUZZ
@given(changes=CHANGES)
def test_a_changed_archive_is_equal_or_refused(changes: list[tuple[int, int]]) -> None:
    try:
        loaded = io.load_pth(changed(ZIP, changes))
    except cr.FormatError:
        return
    assert is_equal(loaded, io.load_pth(ZIP))


@FUZZ
@given(changes=CHANGES)
def test_a_changed_legacy_file_or_pickle_gives_bounded_values_or_is_refused(changes: list[tuple[int, int]]) -> None:
    start = LEGACY.index(b"_rebuild_tensor_v2") - 60
    within = [(start + at % 700, value) for at, value in changes]  # mostly the pickle, which no checksum guards
    for data in (changed(LEGACY, changes), changed(LEGACY, within)):
        with at_most(100 * len(LEGACY) + 200_000):
            try:
                io.load_pth(data)
            except cr.FormatError:
                continue


@FUZZ
@given(changes=CHANGES)
def test_changed_safetensors_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = changed(io.save({"w": np.arange(6.0), "mask": np.array([True, False])}), changes)
    try:
        loaded = io.load(data)
    except cr.FormatError:
        return
    assert sum(x.nbytes for x in loaded.values()) <= len(data)


PIECES = st.sampled_from(
    [bytes([code]) for code in b"().]}NtseaubQRqhrjKMJGXcU"]
    + [b"\x85", b"\x86", b"\x87", b"\x88", b"\x8a", b"\x8c", b"\x93", b"\x94", b"\x00", b"\x01", b"q\x00", b"h\x00"]
    + [encode(value) for value in (DICT, tensor((2,), (1,)), storage(), "a", (1,), -1)]
    + [encode(Global(f"torch._utils _rebuild_{name}")) for name in ("tensor_v2", "tensor_v3", "parameter")]
    + [encode(Global("torch._tensor _rebuild_from_type_v2")), encode(Global("torch Size")), encode({"_metadata": {}})]
)


@FUZZ
@given(code=st.lists(PIECES, max_size=40).map(b"".join))
def test_any_opcodes_make_a_value_or_an_error(code: bytes) -> None:
    for data in (zipped(b"\x80\x02" + code + b".", {"0": ROW}), legacy(b"\x80\x02" + code + b".", {"0": (6, ROW)})):
        with at_most(500_000):
            try:
                io.load_pth(data)
            except cr.FormatError:
                continue


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_make_a_value_or_an_error(data: bytes) -> None:
    for file in (data, b"\x80" + data, b"PK\3\4" + data, b"\x80\x02" + data + b"."):
        with pytest.raises(cr.FormatError):
            io.load_pth(file)
    try:
        run(b"\x80\x02" + data + b".", 0, {})
    except cr.FormatError:
        return
