"""Derives the client for threads from the one for asyncio: `python client/derive.py`, or `--check` to compare only.

The modules of `chainrule/client/aio` named below are the source. They are written so that leaving out the words `async`
and `await` gives the code for threads; what cannot be said so is in the two modules `runtime.py`.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent / "chainrule" / "client"
MODULES = (
    "access",
    "blobs",
    "channel",
    "client",
    "cluster",
    "datasets",
    "job",
    "jobs",
    "models",
    "paging",
    "predictions",
)
NOTE = "# Derived from aio/{name}.py by client/derive.py. Change that, and run `make client`.\n"

RULES: tuple[tuple[str, str], ...] = (
    (r"\bthe tasks of its loop\b", "threads"),
    (r"\basync (def|for|with) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\baclosing\b", "closing"),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAwaitable, ", ""),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\b(_?)Async([A-Z])", r"\1\2"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\bchainrule\.client\.aio\b", "chainrule.client"),
)
"""What becomes of the source, line by line and in this order."""


def derive(source: str) -> str:
    """The code for threads, as ruff has yet to lay it out."""
    for pattern, replacement in RULES:
        source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
    return source


def derived() -> Mapping[Path, str]:
    """Every derived file with its content."""
    return {PACKAGE / f"{name}.py": _laid_out(name) for name in MODULES}


def _laid_out(name: str) -> str:
    code = derive((PACKAGE / "aio" / f"{name}.py").read_text())
    docstring, rest = code.split("\n", 1)
    code = f"{docstring}\n{NOTE.format(name=name)}{rest}"
    ruff = [sys.executable, "-m", "ruff"]
    at = ["--stdin-filename", str(PACKAGE / f"{name}.py"), "-"]
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        code = subprocess.run([*ruff, *command, *at], input=code, capture_output=True, text=True, check=True).stdout
    return code


def main() -> int:
    """Write what is derived; with --check only compare, and fail where a file is not as it would be."""
    stale = [path for path, code in derived().items() if not path.exists() or path.read_text() != code]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what aio/{path.name} gives; run: make client")
        return 1 if stale else 0
    for path in stale:
        path.write_text(derived()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
