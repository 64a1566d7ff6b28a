"""Testing job types: faults on purpose (`fail`, `die`, `hang` and so on), and what pytest needs.

The fixtures ``geoflow_session`` and ``geoflow_check`` are there in any test once geoflow is installed. What is here is
loaded when it is first used: pytest imports this package each time that it starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoflow.testing.faults import Fault, die, fail, fail_some, hang, returns, slow
    from geoflow.testing.regression import as_stored

__all__ = ["Fault", "as_stored", "die", "fail", "fail_some", "hang", "returns", "slow"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'geoflow.testing' has no attribute {name!r}")
    home = "geoflow.testing.regression" if name == "as_stored" else "geoflow.testing.faults"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
