"""Text from others, made fit for a terminal: what would move its cursor, colour it or hide something is shown."""

import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # scripts and emoji need them


def printable(text: str) -> str:
    """A text with every character replaced that does not print; spaces, tabs and line breaks stay.

    >>> printable("one\\n\\x1b[2Jtwo")
    'one\\n�[2Jtwo'
    """
    if text.isprintable():
        return text
    return "".join(character if _prints(character) else REPLACEMENT for character in text.replace("\r\n", "\n"))


def _prints(character: str) -> bool:
    return character.isprintable() or character in "\n\t" + _JOINERS or unicodedata.category(character) == "Zs"
