"""What is wrong with a source file, told without running it. It is a program, too, and imports nothing of chainrule:
whoever does not trust a file has it parsed in a process of its own."""

from __future__ import annotations

import ast
import json
import sys
import warnings

MAX_SOURCE_BYTES = 1024**2
"""Largest source file."""
MAX_MEMORY_BYTES = 512 * 1024**2
"""What the program may take: a tree takes a thousand times the bytes of some files."""


def complaint(source: bytes, factory: str) -> str:
    """Why a source file cannot be what a network is made of, with the line; empty: nothing shows before it is run.

    Args:
        factory: what it must define at its top level.
    """
    if len(source) > MAX_SOURCE_BYTES:
        return f"has {len(source):,} bytes; a source file has at most {MAX_SOURCE_BYTES:,}"
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source[: error.start].count(b"\n") + 1
        return f"is not UTF-8: byte {error.start:,}, in line {line}, is {source[error.start]:#04x}"
    if "\0" in text:
        return f"has the character NUL in line {text[: text.index(chr(0))].count(chr(10)) + 1}: it is no source file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts: whoever runs it is told
            tree = ast.parse(text)
    except SyntaxError as error:
        return f"is no Python {sys.version_info[0]}.{sys.version_info[1]}, line {error.lineno}: {error.msg}"
    except (RecursionError, MemoryError):
        return "is nested too deeply, or consists of too much, to be parsed"
    except ValueError as error:
        return f"cannot be parsed: {error}"
    defined = _defined(tree.body)
    if factory not in defined and "*" not in defined:
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        return (
            f'has no "{factory}" at its top level, which is to make the network; it defines '
            f"{', '.join(functions[:20]) or 'no functions'}"
        )
    return ""


def own_factories(source: bytes) -> set[str]:
    """The functions and classes that a source file itself defines at its top level; none of what it imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return _defined(tree.body, only_own=True)


def _defined(body: list[ast.stmt], *, only_own: bool = False) -> set[str]:
    """The names that statements bind, as far as that can be seen; `only_own`: to functions and classes that they
    define."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported) if not only_own:
                names.update((alias.asname or alias.name).partition(".")[0] for alias in imported)
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                branches = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
                handlers = [part for of in getattr(node, "handlers", ()) for part in of.body]
                names |= _defined([*branches, *handlers], only_own=only_own)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign() if not only_own:
                inside = (part for part in ast.walk(node) if isinstance(part, ast.Name))
                names.update(part.id for part in inside if isinstance(part.ctx, ast.Store))
    return names


if __name__ == "__main__":  # the source on stdin, the factory's name as an argument
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    json.dump(complaint(sys.stdin.buffer.read(), sys.argv[1]), sys.stdout)
