"""DBOS on SQLite: a workflow whose tasks are steps, each recorded; done in place, or handed to a pool of processes."""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS

from benchmarks import tasks
from benchmarks.peer_harness import Peer, main

_pools: list[ProcessPoolExecutor] = []


@DBOS.step()
def step(name: str, item: Any) -> Any:
    return getattr(tasks, name)(item)


@DBOS.step()
async def pool_step(name: str, item: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_pools[-1], getattr(tasks, name), item)


@DBOS.workflow()
def noops(n: int) -> int:
    return len([step("noop", {"index": index}) for index in range(n)])


@DBOS.workflow()
def two_stages(n: int, loops: int) -> int:
    items = step("listing", {"n": n, "loops": loops})
    return int(step("gathered", [step("busy", item) for item in items]))


async def _all(name: str, items: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*(pool_step(name, item) for item in items)))


@DBOS.workflow()
async def pool_noops(n: int) -> int:
    return len(await _all("noop", [{"index": index} for index in range(n)]))


@DBOS.workflow()
async def pool_two_stages(n: int, loops: int) -> int:
    items = await pool_step("listing", {"n": n, "loops": loops})
    return int(await pool_step("gathered", await _all("busy", items)))


def _engine(file: Path) -> sqlalchemy.Engine:
    """DBOS's own SQLite engine, but with a log ahead of the file and no fsync for each step."""
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")

    @sqlalchemy.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for setting in ("busy_timeout = 30000", "foreign_keys = ON", "journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {setting}")

    return engine


class Steps(Peer):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        engine = _engine(folder / "dbos.sqlite")
        DBOS(
            config={
                "name": "benchmark",
                "system_database_engine": engine,
                "log_level": "ERROR",
                "run_admin_server": False,
            }
        )
        DBOS.launch()

    def __exit__(self, *error: Any) -> None:
        DBOS.destroy()

    def noops(self, n: int) -> int:
        return noops(n)

    def two_stages(self, n: int, loops: int) -> int:
        return two_stages(n, loops)


class PoolSteps(Steps):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _pools.append(tasks.spawn_pool())

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _pools.pop().shutdown()

    def noops(self, n: int) -> int:
        return asyncio.run(pool_noops(n))

    def two_stages(self, n: int, loops: int) -> int:
        return asyncio.run(pool_two_stages(n, loops))


if __name__ == "__main__":
    main({"steps": Steps, "pool": PoolSteps}, "dbos")
