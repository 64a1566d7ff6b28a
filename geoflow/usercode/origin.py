"""Whose code a file is: geoflow's own, the user's, or that of Python and of what is installed."""

from __future__ import annotations

import os
import re
import sys
import sysconfig

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_BUILT_IN = os.path.join(PACKAGE, "builtin", "")  # job types that might as well be the user's
_INSTALLED = re.compile(f"{re.escape(sysconfig.get_path('stdlib'))}|.*(site|dist)-packages|<frozen ")


def is_ours(path: str) -> bool:
    """Whether the file is geoflow's, and no job type that comes with it."""
    return path.startswith(PACKAGE) and not path.startswith(_BUILT_IN)


def is_users(path: str) -> bool:
    """Whether the file is neither Python's, nor geoflow's, nor an installed package's. A cell counts as a file."""
    return path.startswith(_BUILT_IN) or not (is_ours(path) or _INSTALLED.match(path))


def stacklevel() -> int:
    """Of a warning that is about what the user has called: their line, not one of geoflow's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    return level
