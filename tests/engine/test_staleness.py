"""Tasks that ran with older code: they are told apart, named at a submission, and run again with all that follows."""

from __future__ import annotations

import linecache
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import ParameterError
from tests.helpers.profiles import seldom
from tests.helpers.sessions import OpenSession, rows

FIRST = """
    import os
    from pathlib import Path
    from pydantic import BaseModel
    class Params(BaseModel):
        n: int = 4
    t = gf.JobType("stale", params=Params)
    def note(word):
        with open(trace, "a") as file:
            file.write(word + "\\n")
"""
SCAN = """
    @t.stage
    def scan(p: Params) -> list[int]:
        note("scan")
        return list(range(p.n))
"""
STAT = """
    @t.each(scan)
    def stat(tile: int, p: Params) -> int:
        note(f"stat {tile}")
        if tile == 2:
            raise ValueError("tile 2 is broken")
        return tile
"""
MERGE = """
    @t.reduce(stat)
    def merge(stats: list[int]) -> dict:
        note("merge")
        return {"sum": sum(stats)}
"""
WHOLE = STAT.replace("if tile == 2", "if tile == 99")
MENDED = STAT.replace('raise ValueError("tile 2 is broken")', "return 20")


class Notebook:
    """Cells run in one namespace, with their sources where IPython leaves them."""

    def __init__(self, session: gf.Session, trace: Path) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "gf": gf, "session": session, "trace": str(trace)}
        self.session = session
        self._trace = trace
        self._cells = 0
        for cell in (FIRST, SCAN, STAT, MERGE):
            self.run(cell)

    def run(self, source: str) -> None:
        self._cells += 1
        source, name = textwrap.dedent(source), f"<ipython-input-{self._cells}-{id(self)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), self.names)

    def job(self, **options: Any) -> gf.JobHandle:
        found: gf.JobHandle = self.names["t"].run(session=self.session, **options)
        return found

    def ran(self) -> list[str]:
        """What has run since this was asked last."""
        found = self._trace.read_text().splitlines() if self._trace.exists() else []
        self._trace.write_text("")
        return sorted(found)


@pytest.fixture(params=["work.db", seldom("work.duckdb")])
def notebook(open_session: OpenSession, tmp_path: Path, request: pytest.FixtureRequest) -> Notebook:
    return Notebook(open_session(tmp_path / request.param, workers=1), tmp_path / "trace")


def stale(job: gf.JobHandle) -> dict[str, list[Any]]:
    frame = job.tasks()
    return {str(name): list(group["stale"]) for name, group in frame.groupby("task_type", sort=False)}


def test_each_attempt_records_its_code_and_a_mended_cell_makes_the_older_ones_stale(notebook: Notebook) -> None:
    job = notebook.job()
    assert job.status == "failed"
    assert stale(job) == {"stale_scan": [False], "stale_stat": [False] * 4}
    notebook.run("# a comment\n" + textwrap.dedent(STAT).replace("-> int:", "-> int:\n    # another"))
    assert stale(job) == {"stale_scan": [False], "stale_stat": [False] * 4}
    notebook.run(MENDED)
    assert stale(job) == {"stale_scan": [False], "stale_stat": [True] * 4}
    assert len({code for (code,) in rows(notebook.session, "SELECT DISTINCT code FROM attempts")}) == 2


def test_S37_retry_failed_uses_the_code_of_now_and_keeps_what_completed(notebook: Notebook) -> None:
    job = notebook.job()
    notebook.run(MENDED)
    notebook.ran()
    assert job.retry_failed().result() == {"sum": 24}
    assert notebook.ran() == ["merge", "stat 2"]
    assert stale(job) == {"stale_scan": [False], "stale_stat": [True, True, False, True], "stale_merge": [False]}


def test_a_rerun_of_what_is_stale_runs_that_and_all_stages_behind_it(notebook: Notebook) -> None:
    job = notebook.job()
    notebook.run(MENDED)
    assert job.retry_failed().wait().stale == 3
    notebook.ran()
    assert job.rerun(stale=True).result() == {"sum": 24}
    assert notebook.ran() == ["merge", "stat 0", "stat 1", "stat 3"]
    assert not job.tasks()["stale"].any()
    assert job.rerun(stale=True).result() == {"sum": 24}, "nothing is out of date"
    assert notebook.ran() == []
    frame = job.attempts()
    assert list(frame[frame["task_type"] == "stale_stat"].groupby("task_index")["attempt"].max()) == [2, 2, 2, 2]
    assert len(job.tasks(history=True)) == len(job.tasks()) + 1, "the merge of before is history"


def test_a_helper_counts_for_the_stages_that_use_it(notebook: Notebook) -> None:
    notebook.run(WHOLE)
    job = notebook.job()
    notebook.run("def note(word):\n    Path(trace).open('a').write(word.upper() + '\\n')")
    assert all(all(column) for column in stale(job).values())
    notebook.ran()
    job.rerun(stale=True).wait()
    assert notebook.ran() == ["MERGE", "SCAN", "STAT 0", "STAT 1", "STAT 2", "STAT 3"]


@pytest.mark.parametrize("stage", [2, "stat"])
def test_a_rerun_of_a_stage_plans_it_anew_and_keeps_those_before(notebook: Notebook, stage: int | str) -> None:
    notebook.run(WHOLE)
    job = notebook.job()
    notebook.ran()
    assert job.rerun(stage=stage).result() == {"sum": 6}
    assert notebook.ran() == ["merge", "stat 0", "stat 1", "stat 2", "stat 3"]
    assert list(job.stages()["completed"]) == [1, 4, 1]


def test_a_rerun_that_is_interrupted_goes_on_when_it_is_resumed(notebook: Notebook) -> None:
    notebook.run(WHOLE)
    job = notebook.job()
    notebook.run(STAT)
    notebook.ran()
    assert job.rerun(stale=True).wait().status == "failed"
    notebook.session.close()
    notebook.run(MENDED)
    assert job.retry_failed().result() == {"sum": 24}
    assert notebook.ran() == ["merge", "stat 0", "stat 1", "stat 2", "stat 2", "stat 3"]


def test_what_cannot_be_run_again_is_said(notebook: Notebook) -> None:
    job = notebook.job()
    for options, told in (
        ({"stage": 3}, r"has not come to stage 3 yet: job.resume\(\) goes on"),
        ({"stage": "stats"}, r"has no stage 'stats'. Its stages are 1 \(scan\), 2 \(stat\), 3 \(merge\)"),
        ({"stage": 2, "stale": True}, r"rerun takes stage= or stale=True"),
    ):
        with pytest.raises(ParameterError, match=told):
            job.rerun(**options)


def test_S9_a_job_that_is_found_again_says_that_its_code_has_changed_and_what_to_do(notebook: Notebook) -> None:
    notebook.run(WHOLE)
    first = notebook.job()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert notebook.job().receipt is not None
    notebook.run(MENDED)
    with pytest.warns(UserWarning, match="older code") as caught:
        again = notebook.job()
    (warning,) = caught
    assert warning.filename == __file__, "it points to who submitted"
    assert str(warning.message) == (
        f"Job {first.id[:8]} (stale) is completed, and 4 tasks of 'stale_stat' ran with older code: "
        "job.rerun(stale=True) runs them again, and all that follows; on_existing='rerun' the whole job."
    )
    assert again.receipt is not None
    assert (again.receipt.status, again.receipt.stale) == ("already_exists", 4)
    notebook.ran()
    assert notebook.job(on_existing="rerun").result() == {"sum": 24}
    assert len(notebook.ran()) == 6


def test_where_the_job_type_is_not_registered_nobody_can_tell(notebook: Notebook, open_session: OpenSession) -> None:
    job = notebook.job()
    notebook.session.close()
    elsewhere = open_session(notebook.session.settings.store).job(job.id)
    assert elsewhere.tasks()["stale"].isna().all()
