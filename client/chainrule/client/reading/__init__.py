"""Examples from arrays, tables, files, folders of pictures and texts: read some at a time."""

from chainrule.client.reading.opening import open_reader, open_source
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, Reader
from chainrule.client.reading.tokenizers import BytePairTokenizer, ByteTokenizer, Tokenizer

__all__ = [
    "Block",
    "BytePairTokenizer",
    "ByteTokenizer",
    "ReadOptions",
    "Reader",
    "Tokenizer",
    "open_reader",
    "open_source",
]
