"""Functions and classes of a notebook, on their way to processes that a handler starts itself."""

from __future__ import annotations

import functools
import sys
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any


def settle_in() -> None:
    """Have `multiprocessing` send by value what has no name in a module, once this process starts another one.

    What a notebook or a script defines is in a worker, but in no module there: its pools would refuse to pickle it.
    Before, it would only make what the worker itself sends slower.
    """
    start = BaseProcess.start

    @functools.wraps(start)
    def start_able(process: BaseProcess) -> None:
        _send_by_value()
        start(process)

    setattr(BaseProcess, "start", start_able)  # noqa: B010


def _send_by_value() -> None:
    setattr(ForkingPickler, "reducer_override", _by_value)  # noqa: B010 - stubs differ about whether it has one


def _by_value(pickler: ForkingPickler, value: Any) -> Any:
    """How to pickle the *value*; asked of all but plain values and containers."""
    if not isinstance(value, FunctionType | type) or _has_a_name(value):
        return NotImplemented
    import cloudpickle

    return _loaded, (cloudpickle.dumps(value),)


def _has_a_name(value: FunctionType | type) -> bool:
    """Whether its module has it by its name, so that another process finds it there."""
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _loaded(pickled: bytes) -> Any:
    import cloudpickle

    _send_by_value()  # what it returns may be of such a class as well
    return cloudpickle.loads(pickled)
