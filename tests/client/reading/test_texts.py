"""Texts as tokens: the next one is the target; pairs of bytes are the same for the same texts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading import BytePairTokenizer, ByteTokenizer, ReadOptions, open_source, texts

TEXTS = ["low lower lowest, low and lower", "newer newest new — Grüße 🙂", "  spaces   and\ttabs\n", "x_1 != 22"]


def lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def read(source: Path, **options: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    blocks = list(open_source(source, ReadOptions(**options)).blocks())
    inputs, targets = (np.concatenate([block[name] for block in blocks]) for name in ("inputs", "targets"))
    return inputs, targets


def test_targets_are_the_tokens_that_follow(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", [{"text": "abc"}, {"text": "de"}, {"text": "f"}])
    inputs, targets = read(path, length=4)
    assert inputs.tolist() == [[97, 98, 99, 256], [100, 101, 256, 102]]
    assert targets.tolist() == [[98, 99, 256, 100], [101, 256, 102, 256]]


def test_blocks_do_not_change_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "t.jsonl", [{"body": f"text number {i}"} for i in range(200)])
    whole = read(path, length=7, text="body")
    monkeypatch.setattr(texts, "rows_at_a_time", lambda row_bytes: 3)
    for one, other in zip(whole, read(path, length=7, text="body"), strict=True):
        assert np.array_equal(one, other)


def test_a_file_of_text_is_one_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.txt"
    path.write_text("Grüße an alle\n" * 50)
    monkeypatch.setattr(texts, "_PIECE", 10)
    inputs, targets = read(path, length=5)
    content = list(("Grüße an alle\n" * 50).encode())
    assert inputs.reshape(-1).tolist() == content[: inputs.size]
    assert targets.reshape(-1).tolist() == content[1 : targets.size + 1]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"text": "a"}\n{"text"\n', "line 2 is not JSON"),
        ('{"text": "a"}\n\n{"body": "b"}\n', 'line 3 has no text in the field "text"'),
        ('{"text": 7}\n', "line 1 has no text"),
        ("[1]\n", "line 1 has no text"),
        ("[" * 100_000 + "\n", "line 1 is not JSON"),
        ('{"text": "a"}\n', "has 2 tokens; an example takes 129"),
    ],
)
def test_lines_that_are_no_texts_are_named(tmp_path: Path, content: str, error: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(InvalidInputError, match=error):
        read(tmp_path / "t.jsonl")


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_LINE_BYTES", 100)
    path = lines(tmp_path / "t.jsonl", [{"text": "a" * 500}])
    with pytest.raises(InvalidInputError, match="line 1 has 100 bytes or more"):
        read(path)


# --- tokenizers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*TEXTS, ""])
def test_tokens_become_the_text_again(text: str) -> None:
    for tokenizer in (ByteTokenizer(), BytePairTokenizer([]), BytePairTokenizer.train(TEXTS, vocabulary=300)):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode([*tokens, tokenizer.end]) == text
        assert all(0 <= token < tokenizer.end < tokenizer.vocabulary for token in tokens)


def test_frequent_pairs_are_joined_first() -> None:
    tokenizer = BytePairTokenizer.train(["ab ab ab abc abc"], vocabulary=260)
    assert tokenizer.merges == ((97, 98), (32, 256), (257, 99))
    assert tokenizer.encode("ab abc") == [256, 258]
    assert tokenizer.vocabulary == 260


def slow(texts: list[str], count: int) -> list[tuple[int, int]]:
    """As it is defined: all pairs are counted anew for each that is joined."""
    from collections import Counter

    from chainrule.client.reading.tokenizers import _WORDS

    words = [list(word.encode()) for text in texts for word in _WORDS.findall(text)]
    merges: list[tuple[int, int]] = []
    while len(merges) < count:
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        new = 256 + len(merges)
        merges.append(best)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [new]
                i += 1
    return merges


def test_training_is_what_counting_anew_gives() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        texts = ["".join(rng.choice(list("aab b"), size=300)), *TEXTS]
        assert list(BytePairTokenizer.train(texts, vocabulary=320).merges) == slow(texts, 63)


def test_a_tokenizer_is_kept_in_a_file(tmp_path: Path) -> None:
    tokenizer = BytePairTokenizer.train(TEXTS, vocabulary=290)
    tokenizer.save(tmp_path / "t.json")
    assert BytePairTokenizer.load(tmp_path / "t.json").merges == tokenizer.merges
    for content in ("", "[]", '{"format": "other"}', '{"format": "chainrule.byte_pairs/1", "merges": [[300, 1]]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InvalidInputError):
            BytePairTokenizer.load(tmp_path / "bad.json")


def test_a_text_with_pairs_takes_fewer_tokens(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", [{"text": "the quick brown fox jumps"}] * 50)
    tokenizer = BytePairTokenizer.train(["the quick brown fox jumps"] * 50, vocabulary=300)
    assert read(path, length=8, tokenizer=tokenizer)[0].size < read(path, length=8)[0].size / 3
