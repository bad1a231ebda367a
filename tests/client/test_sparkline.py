"""A curve as one line of text."""

import math

import pytest

from chainrule.client.sparkline import ASCII_BLOCKS, BLOCKS, blocks_for, sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([3.0], "▅"),
        ([2.0, 2.0, 2.0], "▅▅▅"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([7, 0], "█▁"),
        ([-1.0, 0.0, 1.0], "▁▅█"),
        ([0.0, math.nan, 1.0], "▁ █"),
        ([0.0, math.inf, 1.0, -math.inf], "▁ █ "),
        ([math.nan, math.nan], "  "),
    ],
)
def test_the_least_is_lowest_and_the_greatest_is_highest(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_more_values_than_columns_are_averaged() -> None:
    assert sparkline([0, 2, 8, 8, 4, 4], width=3) == "▁█▄"
    assert sparkline([0, 2, 8, 8, 4, 4], width=3) == sparkline([1, 8, 4])


@pytest.mark.parametrize("count", [1, 59, 60, 61, 119, 345])
def test_a_line_is_never_wider_than_asked_for(count: int) -> None:
    assert len(sparkline(list(range(count)), width=60)) == min(count, 60)


def test_a_stream_that_has_no_blocks_gets_ascii() -> None:
    assert (blocks_for("utf-8"), blocks_for("ascii")) == (BLOCKS, ASCII_BLOCKS)
    assert sparkline([1, 2, 4, 8], blocks=ASCII_BLOCKS) == "_.~#"
    assert len(ASCII_BLOCKS) == len(BLOCKS)
    assert ASCII_BLOCKS.isascii()


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        sparkline([1.0], width=0)
