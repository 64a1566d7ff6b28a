"""Tasks that say how large they are: which go out first, and what a probe makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import DefinitionError, JobFailed
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession


@dataclass
class Tile:
    name: str
    pixels: int


def tiles_of(**options: Any) -> gf.TypedJob:
    tiles = gf.JobType("sized_tiles")

    @tiles.stage
    def scan(p: dict[str, Any]) -> list[Tile]:
        return [Tile(name, pixels) for name, pixels in p["tiles"].items()]

    @tiles.each(scan, key="name", workers=1, **options)
    def stat(tile: Tile) -> int:
        return tile.pixels

    return tiles


ROWS = "SELECT task_id, metadata FROM tasks WHERE stage = 2 ORDER BY started_at, task_index"
SKEWED = {"a": 3, "b": 50, "c": 7, "d": 50}


def started(session: gf.Session) -> list[str]:
    frame = session.sql(ROWS)
    return [name.rpartition("-")[2] for name in frame["task_id"]]


@pytest.mark.parametrize("size", ["pixels", lambda tile: tile.pixels**0.5], ids=["a field", "a function"])
def test_S55_the_largest_items_start_first_by_their_size(open_session: OpenSession, size: Any) -> None:
    session = open_session(workers=1)
    job = session.run(tiles_of(size=size, order="largest"), {"tiles": SKEWED})
    assert started(session) == ["b", "d", "c", "a"]
    assert job.result()["results"] == [3, 50, 7, 50], "results stay in the order of the items"


def test_S55_a_size_alone_changes_no_order_and_is_in_the_tasks_metadata(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    session.run(tiles_of(size="pixels"), {"tiles": SKEWED})
    assert started(session) == ["a", "b", "c", "d"]
    assert [eval(text) for text in session.sql(ROWS)["metadata"]] == [{"size": size} for size in SKEWED.values()]


@pytest.mark.parametrize("size", ["value", lambda parameters: parameters["value"]], ids=["a parameter", "a function"])
def test_S55_a_contract_stage_says_it_of_a_tasks_parameters(open_session: OpenSession, size: Any) -> None:
    class BySize(jobs.Acts):
        job_type = "by_size"
        stages = [{**jobs.Acts.stages[0], "order": "largest", "size": size, "workers": 1}]

    session = open_session(workers=0)
    session.register(BySize, jobs.ALL_HANDLERS)
    session.run("by_size", tasks=[{"value": value} for value in (1, 3, 2)])
    frame = session.sql("SELECT task_index FROM tasks ORDER BY started_at")
    assert frame["task_index"].tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (lambda tile: tile.pixels / 0, "Stage 2, task 0 ('{id}-stat-a'): its size cannot be asked for: ZeroDivisionE"),
        (lambda tile: None, "Stage 2, task 0 ('{id}-stat-a'): size= gives None: it must be a number from 0 on"),
        (lambda tile: -1, "size= gives -1: it must be a number from 0 on, of any unit."),
        ("name", "size= gives 'a': it must be a number from 0 on, of any unit."),
    ],
    ids=["it raises", "None", "negative", "a text"],
)
def test_S55_what_is_no_size_fails_the_plan_and_names_the_task(open_session: OpenSession, size: Any, said: str) -> None:
    job = open_session(workers=0).run(tiles_of(size=size), {"tiles": SKEWED})
    with pytest.raises(JobFailed) as failed:
        job.result()
    assert said.format(id=job.id[:8]) in str(failed.value)


def test_S55_a_size_that_is_no_field_is_refused_where_it_is_said() -> None:
    with pytest.raises(DefinitionError, match=r"size='pixel' is no field of Tile: did you mean 'pixels'\?"):
        tiles_of(size="pixel")


def test_S55_a_probe_runs_the_largest_item_by_its_size(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    probe = session.probe(tiles_of(size="pixels"), {"tiles": {f"t{i}": 1 + 98 * (i == 7) for i in range(20)}})
    tasks = probe.job.tasks()
    assert 99 in [note["size"] for note in tasks[tasks["stage"] == 2]["metadata"]]
