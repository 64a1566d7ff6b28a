"""How many examples a property is tried on."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Test = Callable[..., None]


def examples(number: int, *strategies: SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Have a test try so many examples of *strategies*; `fewer_examples` has it try a twentieth."""
    from hypothesis import HealthCheck, given, settings

    def decorate(test: Test) -> Test:
        def tried(times: int) -> Any:
            slow = settings(max_examples=times, deadline=None, suppress_health_check=[HealthCheck.too_slow])
            return slow(given(*strategies)(test))

        often = tried(number)
        often.seldom = tried(max(number // 20, 5))
        return often

    return decorate


def fewer_examples(module: ModuleType) -> dict[str, Test]:
    """The tests of *module* that try examples, for a slower store: by name, each with a twentieth."""
    return {name: test.seldom for name, test in vars(module).items() if hasattr(test, "seldom")}
