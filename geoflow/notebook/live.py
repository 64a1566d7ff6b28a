"""A drawing that is made again in one output of a cell for as long as what it shows changes: HTML, no widgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from geoflow.notebook.outputs import detached, display, safely

SECONDS_BETWEEN = 0.5  # two drawings; at least
SHARE = 10  # one part in so many of the time may go into drawing


class Drawn(NamedTuple):
    """What is shown, by its MIME types, or None where nothing new can be seen; and whether that is its end."""

    bundle: dict[str, Any] | None
    is_over: bool


class Live:
    """One output of the cell that runs now. A thread draws it until that is over; what is there then stays."""

    def __init__(self, draw: Callable[[], Drawn]) -> None:
        self._draw = draw
        self._drawing, self._over = threading.Lock(), threading.Event()
        self._shown, is_over = draw()
        self._output = display(self._shown or {"text/plain": ""})
        if not is_over:
            threading.Thread(target=detached().run, args=(self._follow,), name="geoflow-view", daemon=True).start()

    def settle(self) -> None:
        """Draw it once more, as part of the cell that runs now; where that is its end, the thread ends too."""
        with self._drawing:
            bundle, is_over = self._draw()
            if bundle is not None and bundle != self._shown:
                self._shown = bundle
                self._output.update(bundle, raw=True)
        if is_over:
            self._over.set()

    def _follow(self) -> None:
        pause = SECONDS_BETWEEN
        while not self._over.wait(pause):
            began = time.monotonic()
            if not safely(self.settle):
                return
            pause = max(SECONDS_BETWEEN, SHARE * (time.monotonic() - began))
