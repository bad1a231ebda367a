"""From text to numbers and back: the bytes themselves, or pairs of bytes that are frequent."""

from __future__ import annotations

import heapq
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from chainrule.client.errors import InvalidInputError

_WORDS = re.compile(r" ?[^\W\d_]+| ?\d+| ?[^\w\s]+| ?_+|\s+")
_FORMAT = "chainrule.byte_pairs/1"
_BYTES = 256


class Tokenizer(Protocol):
    """Makes tokens of text."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, that of the end of a text included."""

    @property
    def end(self) -> int:
        """The token that ends a text."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without the one that ends it."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become �, the token that ends a text is left out."""


class ByteTokenizer:
    """Each byte of the text in UTF-8 is a token, and 256 is its end."""

    vocabulary = _BYTES + 1
    end = _BYTES

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return list(text.encode())

    def decode(self, tokens: Iterable[int]) -> str:
        """See Tokenizer."""
        return bytes(token for token in tokens if token < _BYTES).decode(errors="replace")


class BytePairTokenizer:
    """Bytes, and pairs of tokens that have become one: token 256 + i is the pair number i.

    Pairs lie within words: a word is letters, digits or other signs with the space before them, or spaces.
    Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016; on bytes as in
    GPT-2.

    Args:
        merges: the pairs, in the order in which they are joined.

    Raises:
        InvalidInputError: a pair has a token that is not there before it.
    """

    def __init__(self, merges: Sequence[tuple[int, int]]) -> None:
        self.merges = tuple((int(a), int(b)) for a, b in merges)
        for number, pair in enumerate(self.merges):
            if not all(0 <= token < _BYTES + number for token in pair):
                raise InvalidInputError(f"merges[{number}] is {pair}; a pair is made of tokens below {_BYTES + number}")
        self._ranks = {pair: number for number, pair in enumerate(self.merges)}
        self._content = [bytes([byte]) for byte in range(_BYTES)]
        for a, b in self.merges:
            self._content.append(self._content[a] + self._content[b])
        self._word = lru_cache(maxsize=65_536)(self._encode_word)

    @property
    def vocabulary(self) -> int:
        """See Tokenizer."""
        return _BYTES + len(self.merges) + 1

    @property
    def end(self) -> int:
        """See Tokenizer."""
        return _BYTES + len(self.merges)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocabulary: int = 1024) -> BytePairTokenizer:
        """The tokenizer whose pairs are the most frequent ones in some texts: always the same for the same texts. Of
        pairs that are as frequent as others, that of the lowest tokens comes first.

        Args:
            vocabulary: how many tokens there are to be, at most; that of the end included.

        Raises:
            InvalidInputError: `vocabulary` leaves no room for bytes and the end.
        """
        if vocabulary <= _BYTES:
            raise InvalidInputError(f"vocabulary is {vocabulary}; use at least {_BYTES + 1}: all bytes, and the end")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_WORDS.findall(text))
        return cls(_most_frequent([(list(word.encode()), n) for word, n in counts.items()], vocabulary - _BYTES - 1))

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return [token for word in _WORDS.findall(text) for token in self._word(word)]

    def decode(self, tokens: Iterable[int]) -> str:
        """See Tokenizer."""
        return b"".join(self._content[token] for token in tokens if token < self.end).decode(errors="replace")

    def save(self, path: str | Path) -> None:
        """Write it to a file of JSON."""
        Path(path).write_text(json.dumps({"format": _FORMAT, "merges": self.merges}))

    @classmethod
    def load(cls, path: str | Path) -> BytePairTokenizer:
        """Read it from a file that `save` has written.

        Raises:
            InvalidInputError: the file is none.
        """
        try:
            values = json.loads(Path(path).read_text())
            if values["format"] != _FORMAT:
                raise InvalidInputError(f'{path} has the format {values["format"]!r}; this version reads "{_FORMAT}"')
            return cls([(a, b) for a, b in values["merges"]])
        except InvalidInputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"{path} cannot be read as a tokenizer: {error!r}") from error

    def _encode_word(self, word: str) -> tuple[int, ...]:
        tokens = list(word.encode())
        while len(tokens) > 1:
            rank = min(self._ranks.get(pair, len(self._ranks)) for pair in itertools.pairwise(tokens))
            if rank == len(self._ranks):
                break
            tokens = _joined(tokens, self.merges[rank], _BYTES + rank)
        return tuple(tokens)


def _most_frequent(words: list[tuple[list[int], int]], count: int) -> list[tuple[int, int]]:
    """The pairs that are joined one after the other, each the most frequent when its turn comes."""
    frequency: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for number, (tokens, times) in enumerate(words):
        for pair in itertools.pairwise(tokens):
            frequency[pair] += times
            places[pair].add(number)
    queue = [(-times, pair) for pair, times in frequency.items()]
    heapq.heapify(queue)
    merges: list[tuple[int, int]] = []
    while queue and len(merges) < count:
        times, pair = heapq.heappop(queue)
        if frequency[pair] != -times:  # it has become another since: it is in the queue with that, too
            continue
        if -times < 2:
            break
        new = _BYTES + len(merges)
        merges.append(pair)
        changed: set[tuple[int, int]] = set()
        for number in sorted(places[pair]):
            tokens, n = words[number]
            for before in itertools.pairwise(tokens):
                frequency[before] -= n
                changed.add(before)
            tokens[:] = _joined(tokens, pair, new)
            for after in itertools.pairwise(tokens):
                frequency[after] += n
                places[after].add(number)
                changed.add(after)
        for other in changed:
            if frequency[other] > 0:
                heapq.heappush(queue, (-frequency[other], other))
    return merges


def _joined(tokens: Sequence[int], pair: tuple[int, int], new: int) -> list[int]:
    found: list[int] = []
    i = 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            found.append(new)
            i += 2
        else:
            found.append(tokens[i])
            i += 1
    return found
