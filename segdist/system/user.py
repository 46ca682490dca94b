"""Who this process belongs to, also where the system has no name for that number (a container's uid)."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """The user's name, else ``uid 1234``."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # neither LOGNAME and the like, nor an entry in the user database
        return f"uid {os.getuid()}"
