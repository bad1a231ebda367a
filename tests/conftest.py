"""Settings of the whole test session."""

from __future__ import annotations

import os
import signal

import hypothesis

# Ray reads these when it is first imported, which some test does before the session's cluster starts.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

# A run that is told to stop takes down what it has started, as one that is interrupted does.
signal.signal(signal.SIGTERM, signal.default_int_handler)

# The same examples every time, none of them remembered in the working tree, and no time limit for any of them.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")
