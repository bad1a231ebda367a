"""A file is there whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.engine import io
from chainrule.engine.io.files import write_whole


def failing() -> Iterator[bytes]:
    yield b"half"
    raise RuntimeError("power cut")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="power cut"):
        write_whole(path, failing())
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_write_that_fails_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        write_whole(tmp_path / "w", failing())
    assert [*tmp_path.iterdir()] == []


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"longer than the new")
    with path.open("rb") as reader:
        write_whole(path, [b"ne", b"w"])
        assert reader.read() == b"longer than the new"  # who reads while it is written has the old one whole
    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


def test_it_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def noted(name: str) -> None:
        call = getattr(os, name)

        def note(*arguments: object) -> object:
            events.append(name)
            return call(*arguments)

        monkeypatch.setattr(os, name, note)

    noted("fsync")
    noted("replace")
    write_whole(tmp_path / "w", [b"x"])
    assert events == ["fsync", "replace", "fsync"]  # the last one is of the folder


def test_the_mode_of_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.touch()
    path.chmod(0o640)
    write_whole(path, [b"x"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_that_open_gives(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", [b"x"])
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", [b"x"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"


def test_what_is_no_regular_file_is_written_to_and_stays() -> None:
    write_whole("/dev/null", [b"x"])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "w", [b"x"])


def test_the_digest_is_sha_256() -> None:
    assert io.digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
