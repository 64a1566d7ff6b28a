"""Whether this is a notebook, without importing anything of one."""

from __future__ import annotations

import sys
from typing import Any


def shell() -> Any:
    """The IPython of this notebook; None where there is no notebook."""
    ipython = sys.modules.get("IPython")
    found = ipython.get_ipython() if ipython is not None else None
    return found if hasattr(found, "kernel") else None
