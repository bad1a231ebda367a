"""Texts for predicting the next token: lines of JSON, or a file that is one text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, rows_at_a_time

MAX_LINE_BYTES = 16 * 1024**2
"""Longest line of JSON that is read."""
_PIECE = 1024**2


class TextReader:
    """Texts one after the other, each with the token that ends it, cut into examples of `length` tokens: inputs
    (n, length), and as targets the tokens that follow each of them. What is left at the end, and too short, is left
    out.

    Args:
        path: `.jsonl`, each line an object with the field `options.text`; or any other file, which is one text.

    Raises:
        InvalidInputError: `options.length` is below 1.
    """

    class_labels: tuple[str, ...] = ()
    num_rows: int | None = None

    def __init__(self, path: Path, options: ReadOptions) -> None:
        if options.length < 1:
            raise InvalidInputError(f"length is {options.length}; use at least 1 token")
        self._path = path
        self._options = options

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        length, tokenizer = self._options.length, self._options.tokenizer
        rows = rows_at_a_time(length * 16)
        held: list[int] = []
        is_empty = True
        for text, is_end in self.texts():
            held.extend(tokenizer.encode(text))
            if is_end:
                held.append(tokenizer.end)
            while len(held) > rows * length:
                yield _cut(held, rows, length)
                is_empty = False
                del held[: rows * length]
        count = (len(held) - 1) // length
        if count > 0:
            yield _cut(held, count, length)
        elif is_empty:
            raise InvalidInputError(
                f"{self._path} has {len(held)} tokens; an example takes {length + 1}: give more text, or less length"
            )

    def texts(self) -> Iterator[tuple[str, bool]]:
        """Pieces of text, and whether a text ends with them. Raises InvalidInputError naming the line."""
        try:
            if self._path.suffix.lower() != ".jsonl":
                with self._path.open(encoding="utf-8", newline="") as whole:
                    while piece := whole.read(_PIECE):
                        yield piece + whole.readline(_PIECE), False  # no word is cut in two
                return
            with self._path.open("rb") as file:
                number = 0
                while line := file.readline(MAX_LINE_BYTES):
                    number += 1
                    if line.strip():
                        yield self._text(line, number), True
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{self._path} is not UTF-8: {error}") from error
        except OSError as error:
            raise InvalidInputError(f"{self._path} cannot be read: {error}") from error

    def _text(self, line: bytes, number: int) -> str:
        if len(line) == MAX_LINE_BYTES:
            raise InvalidInputError(
                f"{self._path}, line {number} has {MAX_LINE_BYTES:,} bytes or more; use shorter texts"
            )
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{self._path}, line {number} is not JSON: {error}") from error
        text = value.get(self._options.text) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise InvalidInputError(
                f'{self._path}, line {number} has no text in the field "{self._options.text}"; name its field with text'
            )
        return text


def _cut(tokens: list[int], count: int, length: int) -> Block:
    """Examples of the first `count * length` tokens, and the one after them."""
    array = np.array(tokens[: count * length + 1], np.int64)
    return {"inputs": array[:-1].reshape(count, length), "targets": array[1:].reshape(count, length)}
