"""joblib with its own processes (loky), which live on between calls, and batches that it sizes by itself."""

from collections.abc import Callable
from typing import Any

from joblib import Parallel, delayed

from benchmarks.peer_harness import Mapper, main
from benchmarks.tasks import WORKERS


class Joblib(Mapper):
    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(Parallel(n_jobs=WORKERS)(delayed(function)(item) for item in items))


if __name__ == "__main__":
    main({"loky": Joblib}, "joblib")
