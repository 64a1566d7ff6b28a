"""Where a handler can be imported from: for what calls it later, in another process or on another machine."""

from __future__ import annotations

import sys
from typing import NamedTuple

from geoflow.jobtypes.contract import Handler, Registered
from geoflow.usercode.packing import pack


class Place(NamedTuple):
    """A *path* of names in a *module*: the handler, or, with a *key*, the dict that has it.

    That *is_called* first where it is a `gf.JobType`, whose method ``handlers`` gives such a dict.
    """

    module: str
    path: str
    key: str | None = None
    is_called: bool = False

    @property
    def name(self) -> str:
        """What is to be imported from the module."""
        return self.path.partition(".")[0]


def place_of(handler: Handler, registered: Registered, task_type: str) -> Place | None:
    """The place of the *handler* of *task_type*; None where that is in no module, as that of a notebook."""
    if (reference := pack(handler).reference) is not None:
        module, _, path = reference.partition(":")
        return Place(module, path)
    module = str(registered.job_class.__module__)
    loaded = sys.modules.get(module)
    if module == "__main__" or getattr(loaded, "__spec__", None) is None:
        return None
    for name, value in vars(loaded).items():
        if registered.maker is not None and value is registered.maker:
            return Place(module, name, task_type, is_called=True)
        if name == "ALL_HANDLERS" and isinstance(value, dict) and value.get(task_type) is handler:
            return Place(module, name, task_type)
    return None
