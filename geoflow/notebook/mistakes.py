"""What a cell shows of an error of geoflow's own: its text, and a traceback only where user code is in that."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

from geoflow.errors import GeoflowError
from geoflow.support.masking import safe
from geoflow.usercode.origin import is_users


def show_in_cells_as_text() -> None:
    """Have IPython, which asks an exception for its own drawing, show those of geoflow's as a block of text."""
    GeoflowError._render_traceback_ = property(_drawing)  # type: ignore[attr-defined]


def show_whole(exc: GeoflowError) -> None:
    """Have the traceback of *exc* shown all the same."""
    exc.shown_whole = True  # type: ignore[attr-defined]


def _drawing(exc: GeoflowError) -> Callable[[], list[str]]:
    """What draws *exc*; ``AttributeError``, so that IPython does, for who is to see where it came from."""
    if getattr(exc, "shown_whole", False) or _asks_for_all() or _user_code_is_in(exc):
        raise AttributeError("_render_traceback_")
    notes = getattr(exc, "__notes__", ())
    return lambda: safe("\n".join((f"{type(exc).__name__}: {exc}", *map(str, notes)))).splitlines()


def _asks_for_all() -> bool:
    """Whether ``%xmode Verbose`` was typed."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(getattr(shell, "InteractiveTB", None), "mode", "") == "Verbose"


def _user_code_is_in(exc: BaseException) -> bool:
    """Whether it went through a function of the user's: more than the line of the cell that called geoflow."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__)]
    users = [code.co_name for code in codes if is_users(code.co_filename)]
    return len(users) > 1 or not all(name.startswith("<") for name in users)


def show_as_a_line(interrupt: KeyboardInterrupt, text: str) -> None:
    """Have IPython show *text* in place of the traceback of an *interrupt*: where it came says nothing."""
    interrupt._render_traceback_ = lambda: [safe(text)]  # type: ignore[attr-defined]
