"""Where a token comes from, and where it may go."""

import logging
from pathlib import Path

import pytest

from chainrule.client import Client, InvalidInputError, Tls
from chainrule.client.credentials import (
    digest_of,
    draw_secret,
    is_loopback,
    metadata_of,
    read_token,
    token_from_environment,
)

SECRET = "chainrule_" + "x" * 43


def test_secrets_are_long_and_new_each_time() -> None:
    drawn = {draw_secret() for _ in range(100)}
    assert len(drawn) == 100
    assert all(secret.startswith("chainrule_") and len(secret) == len(SECRET) for secret in drawn)
    assert digest_of("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("127.example.org:1", False),
        ("localhost.example.org:1", False),
        ("10.0.0.1:1", False),
        ("train.example.org:1", False),
    ],
)
def test_a_token_goes_in_the_open_within_this_machine_only(address: str, is_here: bool) -> None:
    assert is_loopback(address) is is_here
    shown = (("authorization", f"Bearer {SECRET}"),)
    assert metadata_of(SECRET, address, encrypted=True) == shown
    if is_here:
        assert metadata_of(SECRET, address, encrypted=False) == shown
    else:
        with pytest.raises(InvalidInputError, match=f"would go to {address} in the open.*--tls-ca") as caught:
            Client(address, token=SECRET)
        assert SECRET not in str(caught.value)


def test_without_a_token_nothing_is_shown() -> None:
    assert metadata_of(None, "train.example.org:1", encrypted=False) == ()


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "é", "a\0"])
def test_what_cannot_be_a_token_is_refused_without_being_repeated(token: str) -> None:
    with pytest.raises(InvalidInputError, match="the token is not one") as caught:
        Client("localhost:1", token=token)
    assert not token or token not in str(caught.value)


def test_a_token_is_read_from_the_environment() -> None:
    assert token_from_environment({"CHAINRULE_TOKEN": SECRET}) == SECRET
    assert token_from_environment({"CHAINRULE_TOKEN": ""}) is None
    assert token_from_environment({}) is None


def test_a_token_of_the_environment_is_not_sent_in_the_open_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_TOKEN", SECRET)
    with pytest.raises(InvalidInputError, match="in the open"):
        Client.connect("train.example.org:1")


def test_a_token_is_read_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(f"{SECRET}\n")
    assert read_token(file) == SECRET
    assert not caplog.records
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert read_token(file) == SECRET
    assert "others can read the token" in caplog.text


def test_a_file_that_holds_no_token_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read a token from .*none: no such file"):
        read_token(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="other characters than a token has"):
        read_token(tmp_path / "binary")


def test_tls_has_a_token_go_anywhere(tmp_path: Path) -> None:
    Client("train.example.org:1", tls=Tls(), token=SECRET).close()
