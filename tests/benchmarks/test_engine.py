"""The benchmark's command line, short of measuring."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks.engine import FULL, main, orders_of
from benchmarks.single.works import WORKS


def test_list_names_every_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [work.name for work in WORKS]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "resnet19"], "no work is named resnet19; --list lists them"),
        (["--repeats", "0"], "--repeats is 0; there has to be at least 1 round"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_folder_that_is_missing_is_noticed_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--json", str(tmp_path / "none" / "out.json")])
    assert f"there is no folder {tmp_path / 'none'}; make it first" in capsys.readouterr().err


def test_without_pytorch_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main([])
    assert "pip install torch==2.13.0" in capsys.readouterr().err


def test_rounds_alternate() -> None:
    images, others = ([(order.engine, order.memory_format) for order in orders_of(work, FULL)] for work in WORKS[4:6])
    ours, torch = ("chainrule.engine", "contiguous_format"), ("torch", "contiguous_format")
    assert images == [ours, torch, ("torch", "channels_last")] * 3
    assert others == [ours, torch] * 3
