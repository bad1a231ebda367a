"""Settings of the whole test session."""

from __future__ import annotations

import os

# Ray reads these when it is first imported, which some test does before the session's cluster starts.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
