"""A store copied into another one, either way, and what the copy is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geoflow.core.batch import NewTasks
from geoflow.core.rows import Move
from geoflow.errors import StoreBusy, StoreError
from geoflow.stores.convert import convert
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.opening import store_at
from geoflow.stores.sqlite import SqliteStore
from tests.helpers.stored import (
    NASTY,
    NOW,
    OWNER,
    WRONG,
    complete,
    ended,
    everything,
    finished,
    new_job,
    planned,
    started,
    take,
)

WAYS = pytest.mark.parametrize(("source", "target"), [("a.db", "b.duckdb"), ("a.duckdb", "b.db")])


def filled(path: Path) -> list[Any]:
    """A store with something of everything; what its views show."""
    store = store_at(path)
    lease, stage = planned(store, tasks=30)
    complete(store, lease, range(stage.first_key, stage.first_key + 20))
    bad = stage.first_key + 25
    store.commit(lease, [Move("start", [bad]), Move("retry", [bad], NOW + 0.1)], [ended(bad, 1, "failed", WRONG)])
    store.change_job(lease, "fail", now=NOW + 1 / 3, error=NASTY[0], traceback=NASTY[5])
    store.change_job(lease, "rerun", now=NOW)
    store.create(new_job(source="jobs.py"))
    lease = started(store)
    tasks = [
        (f"{n}{text}", text, '{"big":123456789012345678901234567890,"x":1e-7}', None) for n, text in enumerate(NASTY)
    ]
    store.plan(lease, 1, NewTasks.of(*tasks), now=NOW)
    shown = everything(store)
    store.close()
    return shown


@WAYS
def test_S45_all_that_a_store_has_is_in_its_copy_and_comes_back(tmp_path: Path, source: str, target: str) -> None:
    before = filled(tmp_path / source)
    copied = convert(tmp_path / source, tmp_path / target)
    assert copied == {"job": 3, "stage": 2, "task": 30 + len(NASTY), "attempt": 21, "events": 11}
    copy = store_at(tmp_path / target)
    assert isinstance(copy, DuckDbStore if target.endswith(".duckdb") else SqliteStore)
    assert everything(copy) == before
    copy.close()
    back = tmp_path / f"back{Path(source).suffix}"
    assert convert(tmp_path / target, back) == copied
    store = store_at(back)
    assert everything(store) == before
    store.close()


@WAYS
def test_S37_work_goes_on_in_the_copy_where_it_stopped(tmp_path: Path, source: str, target: str) -> None:
    old = store_at(tmp_path / source)
    lease, stage = planned(old, tasks=4)
    complete(old, lease, [stage.first_key])
    old.close()
    convert(tmp_path / source, tmp_path / target)
    new = store_at(tmp_path / target)
    lease = new.claim(lease.job_key, OWNER)
    assert lease.epoch == 2
    (batch,) = take(new, lease, stage, 9)
    assert [(call.task_index, call.task_id) for call in batch.calls()] == [(1, "s1-1"), (2, "s1-2"), (3, "s1-3")]
    new.commit(lease, [Move("complete", batch.keys)], [], [finished(batch.keys)])
    assert sum(some.tasks for some in new.results(stage)) == 4
    following = new.plan(lease, 2, NewTasks.of(("x", "stat_it", "{}", None)), now=NOW)
    assert following.first_key == stage.end_key
    assert new.create(new_job())[0].job_key == lease.job_key + 1
    new.close()


def test_a_target_that_has_jobs_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    filled(tmp_path / "a.db")
    before = filled(tmp_path / "b.duckdb")
    with pytest.raises(StoreError, match="has jobs already"):
        convert(tmp_path / "a.db", tmp_path / "b.duckdb")
    store = store_at(tmp_path / "b.duckdb")
    assert everything(store) == before
    store.close()


def test_a_store_whose_job_is_driven_is_not_copied(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    started(store)
    with pytest.raises(StoreBusy, match="is driven by process 4242"):
        convert(tmp_path / "a.db", tmp_path / "b.duckdb")
    store.close()
    assert not (tmp_path / "b.duckdb").exists()


def test_what_is_not_there_or_is_the_store_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store"):
        convert(tmp_path / "no.db", tmp_path / "b.duckdb")
    filled(tmp_path / "a.db")
    with pytest.raises(StoreError, match="the store itself"):
        convert(tmp_path / "a.db", tmp_path / "a.db")
    with pytest.raises(StoreError, match="in memory"):
        convert(tmp_path / "a.db", ":memory:")
    assert not (tmp_path / "b.duckdb").exists()


def test_nothing_is_kept_of_a_copy_that_did_not_arrive_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "a.db")
    whole = DuckDbStore.insert_rows

    def lossy(self: DuckDbStore, connection: Any, table: str, names: Any, rows: Any) -> None:
        whole(self, connection, table, names, rows[:-1] if table == "attempt" else rows)

    monkeypatch.setattr(DuckDbStore, "insert_rows", lossy)
    with pytest.raises(StoreError, match=r"21 rows were read .* and 20 arrived"):
        convert(tmp_path / "a.db", tmp_path / "b.duckdb")
    monkeypatch.undo()
    assert convert(tmp_path / "a.db", tmp_path / "b.duckdb")["attempt"] == 21
