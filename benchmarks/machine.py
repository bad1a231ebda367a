"""What a benchmark says of the machine it ran on, the code it measured and the settings."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from benchmarks.single.host import DISTURBING, ROOT


def describe(*folders: str) -> dict[str, str]:
    """The commit, and whether these folders have changed since; the machine and what else it does; the settings."""
    commit = git("rev-parse", "--short", "HEAD") or "none"
    changed = [folder for folder in folders if git("status", "--porcelain", "--", folder)]
    settings = ", ".join(f"{name}={os.environ[name]}" for name in DISTURBING if name in os.environ)
    return {
        "commit": commit + (f", and changes to the {' and the '.join(changed)}" if changed else ""),
        "machine": f"{cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": load(),
        "settings": f"{' and '.join(DISTURBING)} unset for both" + (f" (here: {settings})" if settings else ""),
    }


def load() -> str:
    """What runs on the machine at the moment: figures of one that is busy with other things are worth little."""
    return f"{os.getloadavg()[0]:.1f} processes in the last minute"


def git(*arguments: str) -> str:
    """What git says about the checkout; nothing where there is none."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def cpu() -> str:
    """The processor's name, where Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
