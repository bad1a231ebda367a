"""oneDNN is found, refused with the reason, heard when it fails, and of each thread's own."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from chainrule.engine.kernels import onednn
from chainrule.engine.kernels.geometry import ConvGeometry, PoolGeometry
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn import primitive
from chainrule.engine.kernels.onednn.library import Dims, Library, LibraryError, UnimplementedError
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, engine, kept
from tests.engine.kernels.agreement import draws, needs_onednn

float32 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same number everywhere, as it decides the bits."""
    before = cr.get_num_threads()
    cr.set_num_threads(1)
    yield
    cr.set_num_threads(before)


# ---- Where it is, and whether it will do ----


@needs_onednn
def test_the_version_is_one_that_will_do() -> None:
    library = onednn.load()
    assert dnn.OLDEST <= library.version[:2] < (4, 0)
    assert library.version_text == ".".join(map(str, library.version))


@needs_onednn
@pytest.mark.parametrize("setting", ["ONEDNN_MAX_CPU_ISA=SSE41", "ONEDNN_DEFAULT_FPMATH_MODE=BF16"])
def test_the_instruction_set_is_what_the_environment_leaves(setting: str) -> None:
    name, _, value = setting.partition("=")
    code = "from chainrule.engine.kernels import onednn; print(onednn.load().instruction_set)"
    environment = {**os.environ, name: value}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    words = done.stdout.split()
    if name == "ONEDNN_MAX_CPU_ISA":
        assert words == ["sse41" if platform.machine() == "x86_64" else "default"]
    else:
        assert words[1:] == ["fpmath_bf16"]


def chosen(path: str, monkeypatch: pytest.MonkeyPatch) -> Library:
    """What is found when the environment names this."""
    monkeypatch.setenv("CHAINRULE_ONEDNN", path)
    return dnn.find.__wrapped__()


@needs_onednn
def test_the_environment_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    path = onednn.load().path
    assert chosen(path, monkeypatch).path == path


@needs_onednn
def test_unless_it_does_the_first_that_will_do_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    path = onednn.load().path
    monkeypatch.delenv("CHAINRULE_ONEDNN", raising=False)
    monkeypatch.setattr(dnn, "_candidates", lambda: iter(["libabsent.so.3", "libm.so.6", path]))
    assert dnn.find.__wrapped__().path == path


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LibraryError, match=r"^libabsent\.so\.3 cannot be loaded: .*No such file"):
        chosen("libabsent.so.3", monkeypatch)


def test_what_is_no_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "libdnnl.so.3"
    path.write_text("not a library")
    with pytest.raises(LibraryError, match=r"libdnnl\.so\.3 cannot be loaded: "):
        chosen(str(path), monkeypatch)


def test_another_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LibraryError, match=r"^libm\.so\.6 is not oneDNN: it has no dnnl_version$"):
        chosen("libm.so.6", monkeypatch)


def test_all_that_was_tried_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnn, "_candidates", lambda: iter(["libabsent.so.3", "libm.so.6"]))
    with pytest.raises(LibraryError, match=r"^libabsent\.so\.3 cannot be .*; libm\.so\.6 is not oneDNN"):
        dnn.find.__wrapped__()


@needs_onednn
@pytest.mark.parametrize("version", [(2, 7, 3), (3, 1, 9), (4, 0, 0)])
def test_a_version_that_will_not_do_is_refused(version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    path = onednn.load().path
    monkeypatch.setattr(Library, "_version", lambda _: version)
    numbers = ".".join(map(str, version))
    with pytest.raises(LibraryError, match=rf"is oneDNN {numbers}; version 3\.2 or newer, below 4, is needed"):
        chosen(path, monkeypatch)


def compiled(folder: Path, version: str) -> str:
    """A library that says of itself that it is this: major, minor, patch, hash, threads of the CPU, of the GPU."""
    source, path = folder / "dnnl.c", folder / "libdnnl.so.3"
    fields = "int a, b, c; const char *hash; unsigned cpu, gpu;"
    source.write_text(
        f"static struct v {{ {fields} }} v = {{ {version} }}; struct v *dnnl_version(void) {{ return &v; }}"
    )
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no C compiler here")
    return str(path)


def test_the_version_is_the_one_the_library_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LibraryError, match=r"is oneDNN 2\.7\.3; version 3\.2 or newer"):
        chosen(compiled(tmp_path, "2, 7, 3, 0, 2, 0"), monkeypatch)


def test_a_library_with_other_threads_than_openmps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LibraryError, match=r"other threads than OpenMP's \(CPU runtime 4\)"):
        chosen(compiled(tmp_path, "3, 4, 1, 0, 4, 0"), monkeypatch)


# ---- What it says when it fails ----


@needs_onednn
def test_a_call_that_fails_says_which_and_why() -> None:
    with pytest.raises(LibraryError, match=r"^oneDNN: dnnl_memory_desc_create_with_tag: invalid arguments$"):
        onednn.load().make("memory_desc_create_with_tag", 13, Dims(1), 3, dnn.ANY_FORMAT)


@needs_onednn
def test_a_description_that_makes_no_sense_is_an_error_and_not_something_to_leave_to_numpy() -> None:
    x, w = Layout.dense((2, 3, 4, 4), float32), Layout.dense((5, 7, 3, 3), float32)
    windows = Dims(1, 1), Dims(0, 0), Dims(1, 1), Dims(1, 1)
    arguments = dnn.FORWARD_TRAINING, dnn.CONVOLUTION_DIRECT, x.handle, w.handle, None, x.handle, *windows, attributes()
    with pytest.raises(LibraryError, match="dnnl_convolution_forward_primitive_desc_create: invalid") as error:
        describe("convolution_forward", *arguments)
    assert not isinstance(error.value, UnimplementedError)


@needs_onednn
def test_what_it_does_not_have_is_nothing() -> None:
    a, b = Layout.dense((2, 3), np.dtype(np.float16)), Layout.dense((3, 4), float32)
    y = Layout.dense((2, 4), np.dtype(np.uint8))
    assert describe("matmul", a.handle, b.handle, None, y.handle, attributes()) is None
    with pytest.raises(UnimplementedError, match="dnnl_matmul_primitive_desc_create: unimplemented"):
        onednn.load().make("matmul_primitive_desc_create", engine(), a.handle, b.handle, None, y.handle, attributes())


@needs_onednn
def test_a_primitive_that_cannot_be_made_leaves_nothing_behind(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(LibraryError, match="dnnl_primitive_create: invalid arguments"):
        Primitive(0, ())
    gc.collect()
    assert not recwarn.list


# ---- What is kept ----


def computed(seed: int) -> list[Array]:
    """A convolution, normalised and pooled, of a size that depends on the seed, and its gradients; five times."""
    channels, size = 3 + seed, 9 + 2 * seed
    geometry, pooling = ConvGeometry((1, 1), (1, 1)), PoolGeometry((2, 2), (2, 2))
    x, w = draws((2, channels, size, size), seed=seed), draws((16, channels, 3, 3), seed=seed + 1)
    results: list[Array] = []
    for _ in range(5):
        y = onednn.conv2d(x, w, None, geometry)
        z, mean, variance, mask = onednn.batch_norm_relu(y, None, None, 1e-5)
        pooled, offsets = onednn.max_pool2d(z, pooling)
        dz = onednn.unpool(pooled, offsets, z.shape, pooling)
        dy, _, _ = onednn.batch_norm_gradients(dz, y, None, mean, variance, 1e-5, mask)
        dw = onednn.conv2d_weight(dy, x, w.shape, geometry, float32)
        results += [y, z, pooled, dz, dy, dw, onednn.conv2d_input(dy, w, x.shape, geometry)]
    return results


@needs_onednn
def test_threads_compute_at_the_same_time_without_meeting() -> None:
    seeds = [0, 1, 2, 3, 0, 1, 2, 3]  # the same sizes in two threads, too
    alone = [computed(seed) for seed in seeds]
    start = threading.Barrier(len(seeds))

    def together(seed: int) -> list[Array]:
        start.wait()
        return computed(seed)

    with ThreadPoolExecutor(len(seeds)) as threads:
        for mine, expected in zip(threads.map(together, seeds), alone, strict=True):
            for one, other in zip(mine, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def in_a_thread(function: object) -> object:
    """What the function gives in a thread of its own, which has kept nothing yet."""
    assert callable(function)
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function).result()


@needs_onednn
def test_those_used_longest_ago_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primitive, "KEPT", 3)
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    def used() -> None:
        for key in "abcadaeb":
            assert kept(key, partial(make, key)) == key

    in_a_thread(used)
    assert "".join(made) == "abcdeb"


@needs_onednn
def test_each_thread_keeps_its_own() -> None:
    marks = [object(), object()]
    found = [in_a_thread(lambda mark=mark: kept("mark", lambda: mark)) for mark in marks]
    assert found == marks


@needs_onednn
def test_what_is_let_go_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = computed(1)
    monkeypatch.setattr(primitive, "KEPT", 2)
    again = in_a_thread(lambda: computed(1))
    assert isinstance(again, list)
    for one, other in zip(again, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_onednn
def test_that_there_is_nothing_is_kept_as_well() -> None:
    asked: list[str] = []

    def nothing() -> None:
        asked.append("nothing")

    def ask() -> list[None]:
        return [kept("nothing", nothing) for _ in range(3)]

    assert in_a_thread(ask) == [None, None, None]
    assert asked == ["nothing"]


FORKED = """
import os, signal
import numpy as np
import chainrule.engine as cr
from chainrule.engine.kernels import onednn
from chainrule.engine.kernels.geometry import ConvGeometry

cr.set_num_threads(2)
generator = np.random.default_rng(0)
x = generator.standard_normal((8, 16, 32, 32)).astype(np.float32)
w = generator.standard_normal((32, 16, 3, 3)).astype(np.float32)
y = onednn.conv2d(x, w, None, ConvGeometry())
child = os.fork()
if not child:
    signal.alarm(60)  # instead of waiting for ever
same = np.array_equal(onednn.conv2d(x, w, None, ConvGeometry()), y) and cr.get_num_threads() == 2
if not child:
    os._exit(0 if same else 1)
print(same, os.waitpid(child, 0)[1])
"""


@needs_onednn
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_process_computes_with_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True 0\n", 0), done.stderr
