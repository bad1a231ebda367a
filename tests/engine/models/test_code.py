"""Networks that a Python file makes: what the file may be, under which generator it runs, what its errors say."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, nn
from chainrule.engine.models import Source, all_draws, parsing

NET = b"""
from dataclasses import dataclass
import random

import numpy as np

from chainrule.engine import nn


@dataclass
class Settings:
    hidden: int


def build(hidden=4):
    settings = Settings(hidden)
    layer = nn.Linear(3, settings.hidden)
    layer.drawn = random.random(), np.random.rand()
    return layer
"""


def digest_of(module: nn.Module) -> str:
    return io.digest(io.save({name: value.data for name, value in module.state_dict().items()}))


def test_the_factory_is_called_with_its_configuration() -> None:
    assert [Source(NET, config=config).build().weight.shape[0] for config in ({}, {"hidden": 7})] == [4, 7]


def test_what_is_drawn_follows_from_the_seed_and_leaves_no_trace() -> None:
    cr.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = cr.rand(1).item(), random.random(), np.random.rand()
    cr.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    made = [Source(NET).build(seed) for seed in (1, 1, 2)]
    assert (cr.rand(1).item(), random.random(), np.random.rand()) == expected
    assert digest_of(made[0]) == digest_of(made[1]) != digest_of(made[2])
    assert made[0].drawn == made[1].drawn != made[2].drawn


def test_draws_of_all_generators_are_a_function_of_the_seed() -> None:
    found = []
    for seed in (2**63, 2**63, 3):
        with all_draws(seed):
            found.append((cr.rand(1).item(), random.random(), np.random.rand()))
    assert found[0] == found[1] != found[2]


def test_the_file_of_the_documentation_goes_as_often_as_its_inputs_have_it() -> None:
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text().partition("## Code\n")[2]
    module: Any = Source(text.partition("```python\n")[2].partition("```")[0].encode(), config={"features": 6}).build()
    times: list[int] = []
    module.again.register_forward_hook(lambda *_: times.append(1))
    counts = []
    for scale in (0.0, 100.0):
        times.clear()
        assert module(cr.ones(2, 6) * scale).shape == (2, 10)
        counts.append(len(times))
    assert counts[0] < counts[1]


def test_a_class_makes_networks_too() -> None:
    source = b"from chainrule.engine import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(2, 3)\n"
    assert Source(source, "Net").build().weight.shape == (3, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def build(:\n", "net.py is no Python 3"),
        (
            b"x = 1\ndef built(): pass",
            'net.py has no "build" at its top level, which is to make',
        ),
        (b"x = '\xff'\ndef build(): pass", "net.py is not UTF-8: byte 5, in line 1, is 0xff"),
        (b"\n\0", "net.py has the character NUL in line 2"),
        (b"#" * (1024**2 + 1), "net.py has 1,048,577 bytes; a source file has at most 1,048,576"),
        (b"1 / 0\ndef build(): pass", "net.py, line 1: ZeroDivisionError: division by zero"),
        (b"def build():\n    x = 1\n    return missing", "net.py, line 3: NameError: name 'missing' is not defined"),
        (
            b"def build(a): pass",
            "net.py: TypeError: build() missing 1 required positional argument: 'a'; it is build(a)",
        ),
        (b"def build():\n  raise SystemExit(2)", "net.py, line 2: SystemExit: 2"),
        (b"def build():\n  raise ValueError", "net.py, line 2: ValueError"),
        (b"def build(): return 7", '"build" of net.py gives a int; it must give a chainrule.engine.nn.Module'),
        (b"build = 3", "net.py: TypeError: 'int' object is not callable"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_makes_no_network_is_refused_with_its_line(content: bytes, said: str) -> None:
    with pytest.raises(cr.CodeError) as error:
        Source(content, file_name="net.py").build()
    assert str(error.value).startswith(said)


def test_a_setting_that_the_factory_does_not_take_is_refused_with_those_that_it_takes() -> None:
    source = Source(b"def build(features=4, hidden=2): pass\n", config={"hiden": 3}, file_name="net.py")
    with pytest.raises(cr.CodeError, match=r"argument 'hiden'.*; it is build\(features=4, hidden=2\)"):
        source.build()


def test_tracebacks_show_the_lines_of_the_file() -> None:
    source = Source(b"def build():\n    raise ValueError('it is so')\n", file_name="shown.py")
    with pytest.raises(cr.CodeError) as error:
        source.build()
    text = "".join(traceback.format_exception(error.value))
    assert "File \"shown.py\", line 2, in build\n    raise ValueError('it is so')" in text


def test_where_an_error_of_a_forward_comes_from() -> None:
    content = (
        b"from chainrule.engine import nn\nclass build(nn.Module):\n  def forward(self, x):\n    return x.nothing\n"
    )
    source = Source(content, file_name="net.py")
    with pytest.raises(AttributeError) as error:
        source.build()(cr.zeros(1))
    assert source.place_of(error.value) == "net.py, line 4"
    assert source.place_of(ValueError("elsewhere")) == ""


def test_a_file_may_begin_with_a_byte_order_mark_and_define_in_branches() -> None:
    content = b"\xef\xbb\xbfif True:\n  from chainrule.engine.nn import Identity as build\nelse:\n  build = None\n"
    assert isinstance(Source(content).build(), nn.Identity)


def test_a_file_is_utf8_whatever_it_says_of_itself() -> None:
    content = (
        "# coding: latin-1\ntext = 'ä'\nclass build(__import__('chainrule.engine').engine.nn.Identity): said = text\n"
    )
    made: Any = Source(content.encode()).build()
    assert made.said == "ä"


@pytest.mark.parametrize(
    "text",
    [
        "import build", "from x import a as build", "from x import *", "build = f()", "build: int = 1",
        "a, build = 1, 2",
        "try:\n  import x\nexcept ImportError:\n  build = 1", "with a as b:\n  def build(): pass", "class build: pass",
        "async def other(): pass\nfor build in (): build = 1",
    ],
)  # fmt: skip
def test_a_factory_is_found_however_it_is_bound(text: str) -> None:
    assert parsing.complaint(text.encode(), "build") == ""


@pytest.mark.parametrize("text", ["", "def other():\n  def build(): pass", "class A:\n  build = 1", "x.build = 1"])
def test_a_factory_that_is_not_at_the_top_is_not_found(text: str) -> None:
    assert 'has no "build"' in parsing.complaint(text.encode(), "build")


@pytest.mark.parametrize("text", ["(" * 10_000, "-" * 200_000 + "1", "a" + "()" * 100_000, "a" + ".a" * 100_000])
def test_what_is_nested_deeply_is_refused(text: str) -> None:
    assert parsing.complaint(text.encode(), "build")


def test_parsing_runs_nothing_and_is_a_program_that_imports_nothing_of_ours() -> None:
    content = b"raise SystemExit(7)\nimport nowhere\ndef build(): pass\n"
    assert parsing.complaint(content, "build") == ""
    command = [sys.executable, "-I", "-S", parsing.__file__, "build"]
    parsed = subprocess.run(command, input=content, capture_output=True, check=True)
    assert parsed.stdout == b'""'
    with open(parsing.__file__) as file:
        imported = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"ast", "json", "resource", "sys", "warnings"}
