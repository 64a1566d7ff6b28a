"""Testing job types: faults on purpose (`fail`, `die`, `hang` and so on), and what pytest needs.

The fixtures ``geoflow_session`` and ``geoflow_check`` are there in any test once geoflow is installed. What is here is
loaded when it is first used: pytest imports this package each time that it starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoflow.testing.faults import Fault, die, fail, fail_some, hang, returns, slow
    from geoflow.testing.outcomes import as_stored, failure_of

__all__ = ["Fault", "as_stored", "die", "fail", "fail_some", "failure_of", "hang", "returns", "slow"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'geoflow.testing' has no attribute {name!r}")
    return getattr(
        importlib.import_module(f"geoflow.testing.{'outcomes' if name in ('as_stored', 'failure_of') else 'faults'}"),
        name,
    )


def __dir__() -> list[str]:
    return __all__
