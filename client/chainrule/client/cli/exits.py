"""The exit codes of the command line."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    SUCCEEDED = 0
    """It did what it was asked to; a job that was waited for has SUCCEEDED."""
    FAILED = 1
    """The job that was waited for has FAILED."""
    PARTED = 1
    """The two jobs that were compared are not the same."""
    USAGE = 2
    """The command line or a file named in it is wrong; nothing was sent."""
    CANCELLED = 3
    """The job that was waited for was CANCELLED."""
    SERVICE = 4
    """The server refused the call or could not be reached; it says nothing about a job that was waited for."""
    INTERRUPTED = 130
    """Ctrl-C. A job that was waited for goes on."""


EXIT_CODES_HELP = (
    "Exit codes: 0 the job SUCCEEDED, 1 it FAILED, 2 wrong usage, 3 it was CANCELLED, "
    "4 the server refused or could not be reached (the job may well go on), 130 Ctrl-C (the job goes on)."
)

COMPARISON_EXIT_CODES_HELP = (
    "Exit codes: 0 they agree, 1 they part, 2 wrong usage, "
    "4 nothing could be compared, or the server refused or could not be reached."
)
