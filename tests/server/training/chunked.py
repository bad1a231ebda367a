"""Datasets cut into chunks, as files in a folder of blobs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from chainrule.engine import io
from chainrule.engine.io.chunked import Chunk, Column, Manifest
from chainrule.server.training.chunk_files import ChunkedExamples
from chainrule.server.training.examples import Examples


def cut(examples: Examples, folder: Path, *, rows: int) -> ChunkedExamples:
    """The same examples in chunks of so many rows."""
    chunks = []
    for start in range(0, len(examples), rows):
        part = slice(start, start + rows)
        content = io.save(examples[part].columns)
        digest = hashlib.sha256(content).hexdigest()
        path = folder / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        chunks.append(Chunk(digest, len(examples[part])))
    columns = tuple(Column(name, array.dtype.name, array.shape[1:]) for name, array in examples.columns.items())
    return ChunkedExamples(Manifest(columns, tuple(chunks)), str(folder))
