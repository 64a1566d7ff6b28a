"""The same with Prefect: ``python with_prefect.py FOLDER``. Retries are a number a task, state is its server's."""

import json
import sys
from pathlib import Path

from prefect import flow, task
from tiles import listed, measured, merged


@task
def scan(folder: Path) -> list[Path]:
    return listed(folder)


@task(retries=3, retry_delay_seconds=[1, 2, 4], persist_result=True)
def stat(path: Path) -> dict:
    return measured(path)


@task
def merge(found: list[dict]) -> dict:
    return merged(found)


@flow
def tile_stats(folder: Path) -> dict:
    return merge(stat.map(scan(folder)).result())


if __name__ == "__main__":
    print(json.dumps(tile_stats(Path(sys.argv[1]))))
