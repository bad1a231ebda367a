"""What others have written prints, and does no more to a terminal."""

import pytest

from chainrule.client.printable import printable


@pytest.mark.parametrize("text", ["plain", "zwei\nZeilen\tund ein Tab", "数字 ✓", "fine\u00a0space", "👩\u200d🔬", ""])
def test_a_text_that_prints_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "�[31mred"),
        ("\x1b]0;title\x07", "�]0;title�"),
        ("\x9b2J", "�2J"),
        ("over\rwritten", "over�written"),
        ("two\r\nlines", "two\nlines"),
        ("abc\x08\x7f", "abc��"),
        ("\u202eback", "�back"),
    ],
)
def test_what_would_steer_a_terminal_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
