"""The command line of the benchmark of the service, short of measuring."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import service
from benchmarks.serving.goals import Figure, Goal, table
from benchmarks.serving.servers import Server, ServerError

RATIO = Goal("calls", "rate over that of an echo", "", 0.6, at_least=True)
TIME = Goal("first-step", "submit to first step", "s", 1.0)


def test_list_names_every_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert service.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["memory", "first-step", "get-job", "watchers", "download"]


def test_select_keeps_the_order_of_the_report() -> None:
    assert [each.name for each in service.select("download, first-step")] == ["first-step", "download"]


def test_what_cannot_be_measured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--only", "uploads"], "no measurement is named uploads; --list lists them"),
        (["--json", str(tmp_path / "none" / "out.json")], f"there is no folder {tmp_path / 'none'}; make it first"),
    ):
        with pytest.raises(SystemExit):
            service.main(arguments)
        assert message in capsys.readouterr().err


def test_a_measurement_that_fails_is_told_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> Server:
        raise ServerError("chainrule serve did not start")

    monkeypatch.setattr(service, "service", refuse)
    assert service.main(["--quick", "--only", "memory"]) == 1
    assert "memory FAILED: chainrule serve did not start" in capsys.readouterr().out


def test_goals_are_met_from_their_side() -> None:
    assert [RATIO.is_met(value) for value in (0.59, 0.6)] == [False, True]
    assert [TIME.is_met(value) for value in (1.0, 1.01)] == [True, False]
    assert Figure(TIME).met is None
    assert Figure(TIME, (0.5, 3.0, 0.9)).met is True


def test_the_table_shows_the_median_and_what_went_wrong() -> None:
    lines = table([Figure(RATIO, (0.5, 0.7, 0.65), ("loaded",)), Figure(TIME, problem="no room")]).splitlines()
    assert lines[2].startswith("rate over that of an echo ")
    assert lines[2].split()[-6:] == ["0.65", "0.5", "0.7", "≥", "0.6", "met"]
    assert lines[3].split()[-4:] == ["failed", "≤", "1", "s"]
    assert lines[4:] == ["first-step FAILED: no room", "calls: loaded"]
