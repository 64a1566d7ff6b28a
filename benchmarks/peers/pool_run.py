"""The standard library's own pool: one future a task, or chunks of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from benchmarks.peer_harness import Mapper, main
from benchmarks.tasks import mapped, spawn_pool, submitted


class Submit(Mapper):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pool = spawn_pool()

    def __enter__(self) -> Self:
        self.pool.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.pool.shutdown()

    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return submitted(self.pool, function, items)


class Chunks(Submit):
    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        # A few large ones where tasks do nothing; more where they do something, so that both processes end together.
        return mapped(self.pool, function, items, 32 if len(items) <= 1_000 else 8)


if __name__ == "__main__":
    main({"submit": Submit, "map": Chunks})
