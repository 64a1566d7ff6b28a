"""How frames of jobs and tasks show themselves: in 80 columns, what tells rows apart first."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geoflow as gf
from geoflow.support.text import columns
from geoflow.views.readable import Readable
from tests.helpers.sessions import OpenSession


@pytest.fixture(scope="module")
def session() -> Iterator[gf.Session]:
    with gf.Session(":memory:", workers=0, max_retries=0, display="none") as opened:
        yield opened


@pytest.fixture(scope="module")
def job(session: gf.Session) -> gf.JobHandle:
    """Of its five tasks the fourth failed, with a long error."""
    measures = gf.JobType("measures")

    @measures.stage
    def scan(params: dict[str, int]) -> list[int]:
        return list(range(params["n"]))

    @measures.each(scan, on_failure="continue")
    def measure(item: int) -> dict[str, int]:
        if item == 2:
            raise ValueError("<b>no such tile</b>\x1b[31m" + " and no other" * 40)
        return {"item": item}

    return measures.run(n=4, session=session)


def lines(frame: pd.DataFrame) -> list[str]:
    shown = repr(frame).splitlines()
    assert max(map(columns, shown)) <= 80
    return shown


def html_of(frame: Any) -> str:
    return str(frame._repr_html_())


def test_tasks_begin_with_the_authors_key_and_have_durations_one_can_read(job: gf.JobHandle) -> None:
    tasks = job.tasks()
    assert tasks["key"].tolist() == ["scan", "measure-0", "measure-1", "measure-2", "measure-3"]
    assert job.task("measure-2").id == f"{job.id[:8]}-measure-2"
    head, *rows = lines(tasks)
    assert head.split() == ["key", "stage_name", "status", "attempts", "duration", "error"]
    assert rows[1].split()[:5] == ["1", "measure-0", "measure", "completed", "1"]
    assert rows[1].split()[-1] == "ms"
    assert "<b>no such tile</b>…" in rows[3]
    assert "\x1b" not in repr(tasks)


def test_columns_that_are_not_shown_are_named_and_are_there(job: gf.JobHandle) -> None:
    tasks = job.tasks()
    said = " ".join(lines(tasks)[6:])
    assert said.startswith(f"[5 rows × {len(tasks.columns)} columns; also error_type, parameters, result,")
    assert said.endswith("job_id]")
    assert (tasks["job_id"] == job.id).all()
    assert str(tasks["duration"].dtype) == "timedelta64[us]"


def test_what_was_picked_is_shown_as_it_was_picked(job: gf.JobHandle) -> None:
    failed = job.tasks().query("status == 'failed'")
    assert [line.split()[:2] for line in lines(failed)[:2]] == [["key", "stage_name"], ["3", "measure-2"]]
    picked = lines(job.tasks()[["job_id", "status"]][:1])
    assert picked == ["   job_id    status", f"0  {job.id[:8]}  completed", "[1 row × 2 columns]"]


def test_jobs_attempts_errors_and_stages_fit_too(session: gf.Session, job: gf.JobHandle) -> None:
    assert lines(session.jobs())[1].split()[:3] == ["0", job.id[:8], "measures"]
    assert lines(job.attempts())[0].split()[:5] == ["key", "stage_name", "outcome", "attempt", "duration"]
    assert lines(job.errors())[0].split()[:5] == ["key", "stage_name", "outcome", "attempt", "error"]
    head = ["stage", "stage_name", "tasks", "completed", "failed", "duration"]
    assert lines(job.stages())[0].split()[:6] == head


def test_history_logs_and_batches_fit_too(tmp_path: Path, job: gf.JobHandle) -> None:
    assert lines(job.history())[0].split()[:4] == ["happened_at", "event", "stage", "tasks"]
    broken = gf.JobType("broken")

    @broken.stage
    def scan(params: dict[str, Any]) -> int:
        raise ValueError(f"no tile {params['n']}")

    with gf.Session(tmp_path / "work.db", workers=0, max_retries=0, display="none") as other:
        batch = other.map(broken, [{"n": n, "name": "x"} for n in (1, 2)], tag="t")
        batch.wait()
        assert lines(batch.frame())[0].split()[:5] == ["n", "job_id", "job_type", "status", "error"]
        assert lines(batch.errors())[0].split()[:5] == ["jobs", "tasks", "attempts", "error_type", "error"]
        assert lines(other.logs())[0].split() == ["time", "level", "logger", "message"]


def test_ids_that_are_hashes_are_shown_by_the_beginning_that_finds_them(session: gf.Session) -> None:
    job = session.run("hello_world", n=1)
    first = lines(job.tasks())[1].split()[1]
    assert len(first) == 8
    assert job.task(first).id == job.tasks()["task_id"][0]


def test_of_many_rows_the_first_and_the_last_are_shown(job: gf.JobHandle) -> None:
    many = pd.concat([job.tasks()] * 50, ignore_index=True)
    shown = lines(many)
    assert [shown[1][:3], shown[6], shown[11][:3]] == ["0  ", "…", "249"]
    assert f"[250 rows × {len(many.columns)} columns" in shown[12]
    assert "<td>…</td>" in html_of(many)


def test_S45_a_notebook_has_it_as_html_in_which_all_is_escaped(job: gf.JobHandle) -> None:
    html = html_of(job.tasks())
    assert "<b>" not in html
    assert "&lt;b&gt;no such tile" in html
    assert "\x1b" not in html
    assert "columns; the same in all rows, or empty: task_id, metadata, not_before, " in html


def test_it_is_a_frame_in_all_else(job: gf.JobHandle) -> None:
    tasks = job.tasks()
    assert isinstance(tasks, pd.DataFrame)
    for same in (copy.deepcopy(tasks), pickle.loads(pickle.dumps(tasks)), pd.concat([tasks[:2], tasks[2:]])):
        pd.testing.assert_frame_equal(same, tasks)
    # What are no rows of tasks any more is shown as pandas has it.
    for made in (
        tasks.groupby("status", observed=True).size(),
        tasks.set_index("key")[["attempts"]],
        tasks[["stage"]].describe(),
    ):
        assert repr(made) == repr(pd.DataFrame(made) if isinstance(made, Readable) else made)
    with pd.option_context("display.width", None):
        assert repr(tasks) == repr(pd.DataFrame(tasks))


def test_a_frame_without_rows_is_shown_too(open_session: OpenSession) -> None:
    head, *said = lines(open_session(":memory:", workers=0).jobs())
    assert (head.split()[0], said[0][:22]) == ("job_type", "[0 rows × 18 columns; ")
