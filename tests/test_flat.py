"""A session that runs for weeks: what it keeps of each job and of each version of a cell is nothing, or bounded."""

from __future__ import annotations

import gc
import linecache
import sys
import types
import weakref

import pytest
from conftest import OpenSession

from geoflow import engine, fingerprint, sources, transport
from geoflow.notebook import monitor


@pytest.mark.parametrize("workers", [0, 1], ids=["inline", "processes"])
def test_a_session_keeps_nothing_of_a_job_that_has_ended(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    session._engine.taken_up = []
    for n in range(3):
        assert session.run("acts", tasks=[{"value": n}]).status == "completed"
    session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}])
    ended = [weakref.ref(run) for run in session._engine.taken_up]
    session._engine.taken_up = None
    gc.collect()
    assert len(ended) == 4
    assert [run for run in ended if run() is not None] == []
    assert session._engine.runs == {}


def test_of_runs_that_an_error_or_an_interrupt_stopped_the_last_are_remembered(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    jobs = [session.run("acts", tasks=[{"value": n}]) for n in range(engine.REMEMBERED + 3)]
    for job in jobs:
        row = job._row()
        run = session._engine.take_up(row, session._registered_as(row), {})
        run.interrupted = True
        session.store.release(run.lease)
        run.finish()
    assert list(session._engine.runs) == [job.id for job in jobs[3:]]


def test_what_is_remembered_of_versions_of_cells_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_CHARACTERS", 20_000)
    monkeypatch.setattr(transport, "_KNOWN", 50)
    nodes = []
    for n in range(150):
        name, source = f"<ipython-input-flat-{n}>", f"def handler(params):\n    return {n}  # {'x' * 1000}\n"
        monkeypatch.setitem(linecache.cache, name, (len(source), None, source.splitlines(keepends=True), name))
        module = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", module)
        exec(compile(source, name, "exec"), module.__dict__)
        code = transport.pack(module.__dict__["handler"])
        assert transport.pack(module.__dict__["handler"]).fingerprint == code.fingerprint
        nodes.append(weakref.ref(sources.parsed(source).body[0]))
    gc.collect()
    assert sum(map(len, sources._trees)) <= 20_000
    assert 10 <= len([node for node in nodes if node() is not None]) <= 20
    assert len(transport._fingerprints) <= 50
    assert fingerprint.fingerprint(module.__dict__["handler"]) == code.fingerprint


def test_the_last_trees_are_kept_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_CHARACTERS", 10)
    text = f"x = {list(range(100))}"
    assert sources.parsed(text) is sources.parsed(text)


def test_of_views_the_last_are_known(open_session: OpenSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "WATCHED", 3)
    session = open_session(workers=0)
    jobs = [session.run("acts", tasks=[{"value": n}]) for n in range(6)]
    seen = [monitor.monitor_of(job) for job in jobs]
    assert [monitor.monitor_of(job) for job in jobs[-3:]] == seen[-3:]
    assert len(monitor._monitors[session]) == 3
