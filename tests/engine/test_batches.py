"""Many jobs at once: submitted together or not at all, found again by their tag, looked at and taken further as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.batch_handle import BatchNotFound
from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError, StoreError
from tests.helpers.drawn import text_of
from tests.helpers.sessions import OpenSession

STORES = pytest.mark.parametrize("store", [":memory:", "work.db", "work.duckdb"])


def tiles() -> gf.JobType:
    job_type = gf.JobType("tiles", description="One tile.")

    @job_type.stage
    def tile(p: dict) -> int:
        if p.get("size") == 512:
            raise ValueError(f"no band {p['band']!r}")
        return 1

    return job_type


GRID = [{"band": band, "size": size, "crs": "EPSG:4326"} for band in ("red", "green") for size in (256, 512)]


@STORES
def test_S67_a_batch_is_submitted_found_by_its_tag_and_looked_at_as_one(
    open_session: OpenSession, tmp_path: Path, store: str
) -> None:
    session = open_session(store if store == ":memory:" else tmp_path / store, workers=0)
    batch = session.map(tiles(), GRID, tag="sweep").wait()
    found = session.batch("sweep")
    assert found.job_ids == batch.job_ids == tuple(job.id for job in found)
    assert [job.parameters for job in found] == GRID
    frame = found.frame()
    assert frame.columns[:2].tolist() == ["band", "size"]
    assert "crs" not in frame
    assert frame["size"].tolist() == [256, 512, 256, 512]
    assert frame["status"].tolist() == ["completed", "failed"] * 2
    (error,) = found.errors().to_dict("records")
    assert [error[name] for name in ("jobs", "tasks", "attempts", "error_type")] == [2, 2, 2, "ValueError"]
    assert (error["error"], error["job_id"]) == ("no band 'red'", batch.job_ids[1])
    assert repr(found) == "<batch sweep: 4 jobs of tiles: 2 completed, 2 failed>"
    told = [line.split()[2:4] for line in str(found).splitlines()[2:]]
    assert told == [[one["band"], str(one["size"])] for one in GRID]
    assert "ValueError: no b" in str(found)
    assert "failed" in text_of(found._repr_html_())


def test_S67_only_the_jobs_that_failed_are_run_again(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    batch = session.map(tiles(), GRID, tag="sweep").wait()
    assert batch.retry_failed().wait() is batch
    assert [len(job.attempts()) for job in batch] == [1, 2, 1, 2]


def test_S67_the_same_parameters_twice_are_one_job_in_two_places(open_session: OpenSession) -> None:
    batch = open_session(":memory:", workers=0).map(tiles(), [GRID[0], GRID[2], GRID[0]], tag="x").wait()
    assert batch.job_ids[0] == batch.job_ids[2] != batch.job_ids[1]
    assert len(batch.frame()) == len(batch) == 3


def test_S67_of_parameters_of_which_some_are_refused_nothing_is_submitted(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    with pytest.raises(ParameterError, match=r"(?s)Nothing was submitted: 2 of 3 jobs .*\[1\] hello_world.*\[2\]"):
        session.map("hello_world", [{"n": 1}, {"n": "x"}, 5], tag="x")  # type: ignore[list-item]
    with pytest.raises(ParameterError, match="there are no parameters"):
        session.map("hello_world", [], tag="x")
    with pytest.raises(ParameterError, match="A tag is a text"):
        session.map("hello_world", [{"n": 1}], tag="")
    with pytest.raises(BatchNotFound, match=r"has no batch 'x': session.map"):
        session.batch("x")
    assert session.jobs().empty


def test_S67_a_tag_of_other_jobs_is_refused_and_a_longer_list_goes_on_under_it(open_session: OpenSession) -> None:
    session, job_type = open_session(":memory:", workers=0), tiles()
    session.map(job_type, GRID[:2], tag="sweep").wait()
    with pytest.raises(ParameterError, match="is that of 2 jobs of tiles, 1 of them is not among these"):
        session.map(job_type, GRID[1:], tag="sweep")
    with pytest.raises(ParameterError, match="is that of 2 jobs of tiles, another type"):
        session.map("hello_world", [{"n": 1}], tag="sweep")
    assert len(session.jobs()) == 2
    longer = session.map(job_type, GRID, tag="sweep").wait()
    assert longer.job_ids == session.batch("sweep").job_ids
    assert [len(job.attempts()) for job in longer] == [1] * 4


def test_S67_a_map_that_is_interrupted_goes_on_where_it_stopped(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, job_type, submit = open_session(":memory:", workers=0), tiles(), Runtime.submit

    def interrupted(self: Runtime, job_type: Any, given: dict[str, Any], *more: Any) -> Any:
        if given == GRID[2]:
            raise KeyboardInterrupt
        return submit(self, job_type, given, *more)

    monkeypatch.setattr(Runtime, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.map(job_type, GRID, tag="sweep")
    monkeypatch.undo()
    half = session.batch("sweep").wait()
    assert half.frame()["status"].isna().tolist() == [False, False, True, True]
    assert repr(half).endswith("1 completed, 1 failed, 2 not submitted>")
    assert "not submitted" in text_of(half._repr_html_())
    assert session.map(job_type, GRID, tag="sweep").wait().frame()["status"].notna().all()


@pytest.mark.parametrize("note", ["{", "[]", '{"job_type": 1}', '{"job_type": "x", "job_ids": 5}'])
def test_S43_what_a_store_says_of_a_batch_may_be_anything(open_session: OpenSession, note: str) -> None:
    session = open_session(":memory:", workers=0)
    session.store.keep_note("batch x", note, 0.0)
    with pytest.raises(StoreError, match="this batch is damaged"):
        session.batch("x")


def test_S44_secrets_among_the_parameters_of_a_batch_are_not_drawn(open_session: OpenSession) -> None:
    given = [{"n": 1, "message": f"token=hunter{n}"} for n in range(2)]
    batch = open_session(":memory:", workers=0).map("hello_world", given, tag="x").wait()
    assert "hunter" not in batch._repr_html_() + str(batch) + repr(batch)
    assert batch.frame()["message"].tolist() == ["token=hunter0", "token=hunter1"]


def test_S67_a_note_is_one_for_all_who_write_it(open_session: OpenSession, tmp_path: Path) -> None:
    first, second = (open_session(tmp_path / "work.db", workers=0) for _ in range(2))
    assert first.store.noted("x") is None
    assert [store.keep_note("x", value, 0.0) for store, value in ((first.store, "1"), (second.store, "2"))] == [
        "1",
        "1",
    ]
    assert second.store.keep_note("x", "3", 0.0, lambda before: before == "1") == first.store.noted("x") == "3"
