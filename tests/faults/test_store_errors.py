"""The store fails once, at each of its transactions: who waits is told, the session lives, the job can be finished."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from geoflow.core.rows import Lease
from geoflow.errors import StoreError
from geoflow.stores.sqlite import SqliteStore
from tests.faults.driving import SECONDS, check_store
from tests.helpers.clocks import ManualClock
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

Moment = Literal["before", "after"]


class FailingStore(SqliteStore):
    """A store that fails at its transaction number *at*: before it, or when it is committed and ought to say so."""

    def __init__(self, path: Path, at: int, moment: Moment) -> None:
        super().__init__(path)
        self.transactions = 0
        self.has_failed = False
        self._at, self._moment = at, moment

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[Any]:
        self.transactions += 1
        now = self._moment if self.transactions == self._at else None
        if now == "before":
            self._fail()
        with super()._transaction(lease) as connection:
            yield connection
        if now == "after":
            self._fail()

    def keep_sources(self, texts: Mapping[str, Callable[[], str]]) -> None:
        """Texts of code are for those who compare: a job goes on without them, and nobody is told."""

    def _fail(self) -> None:
        self.has_failed = True
        raise StoreError("the disk made a strange noise")


@pytest.mark.parametrize(
    ("workers", "moment", "wrong"),
    [
        *[(0, "before", False), (0, "after", False), (0, "before", True), (0, "after", True)],
        *[(2, "after", False), (2, "before", True)],
    ],
)
def test_F129_a_store_that_fails_at_any_transaction_is_told_and_the_same_session_finishes_the_job(
    open_session: OpenSession, tmp_path: Path, workers: int, moment: Moment, wrong: bool
) -> None:
    at = 0
    while True:
        at += 1
        (folder := tmp_path / str(at)).mkdir()
        trace = Trace(folder / "trace")
        store = FailingStore(folder / "work.db", at, moment)
        session = open_session(folder / "work.db", workers=workers, clock=ManualClock())
        session.runtime.__dict__["store"] = store
        flaky = {"do": "raise", "value": "OSError", "until_attempt": 2}
        tasks: list[dict[str, Any]] = [{}, flaky, {"do": "raise", "value": "ValueError"} if wrong else {}]
        params = {"tasks": [{**task, "trace": trace.path} for task in tasks]}
        try:
            session.run("three_acts", params)
        except StoreError as exc:
            told = str(exc)
        else:
            told = ""
        if not store.has_failed:
            break
        assert told == "the disk made a strange noise", at
        done = {name for (name,) in rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'")}
        ran = Counter(line.split()[0] for line in trace.lines())
        for job in session.resume():
            job.wait(timeout=SECONDS)
        job = session.submit("three_acts", params)  # should nothing have been stored
        wait_until(lambda: job.ended)  # noqa: B023
        assert job.status == ("failed" if wrong else "completed"), at
        if not wrong:
            assert rows(session, "SELECT completed, json_extract(result, '$.completed') FROM jobs") == [(7, 7)]
        check_store(session)
        now = Counter(line.split()[0] for line in trace.lines())
        assert {name: now[name] for name in done} == {name: ran[name] for name in done}, at
        session.close()
    assert at > (8 if wrong else 12)


def test_F129_a_job_whose_end_was_committed_gives_its_result_though_the_store_said_otherwise(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=0)
    session.runtime.__dict__["store"] = FailingStore(tmp_path / "work.db", at=4, moment="after")
    with pytest.raises(StoreError, match="strange noise"):
        session.run("acts", tasks=[])
    job = session.job(session.store.jobs()[0].job_id)
    assert job.status == "completed"
    assert job.result()["completed"] == 0


@pytest.mark.parametrize("at", [1, 2])
def test_S36_of_a_rerun_that_could_not_begin_who_waits_is_told_though_the_job_had_ended(
    open_session: OpenSession, tmp_path: Path, at: int
) -> None:
    first = open_session(workers=0)
    job_id = first.run("acts", tasks=[]).id
    first.close()
    session = open_session(workers=0)
    session.runtime.__dict__["store"] = FailingStore(tmp_path / "work.db", at=at, moment="before")
    with pytest.raises(StoreError, match="strange noise"):
        session.job(job_id).rerun().wait()
    assert session.job(job_id).rerun().wait().status == "completed"
