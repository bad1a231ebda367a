"""The entry point `chainrule`: what has to be in order before the rest of the command line is loaded."""

import codecs
import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from chainrule.client.cli.exits import ExitCode


def main() -> None:
    """Run the command line. Ctrl-C ends it with exit code 130 and without a traceback, however early it comes."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where nohup has it ignored
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    _replace_what_cannot_be_printed()
    from chainrule.client.cli.app import app  # takes a while; a KeyboardInterrupt could surface anywhere in it

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _leave(_signum: int, _frame: FrameType | None) -> NoReturn:
    os._exit(ExitCode.INTERRUPTED)


def _replace_what_cannot_be_printed() -> None:
    """Let characters that the locale does not have become question marks, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")
