"""The command line of the benchmark of training, short of measuring."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks.distributed.works import WORKS
from benchmarks.training import FULL, QUICK, main, select, shortened


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert tuple(line.split()[0] for line in lines) == select(None)


def test_select_keeps_the_order_of_the_report() -> None:
    assert select("mlp-300, resnet18") == ("resnet18", "mlp-300")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "resnet19"], "no row is named resnet19; --list lists them"),
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


def test_a_quick_run_takes_fewer_steps_but_some() -> None:
    assert [shortened(work, FULL) for work in WORKS] == list(WORKS)
    assert all(10 <= shortened(work, QUICK).steps < work.steps for work in WORKS)
