"""A session that runs for weeks: what it keeps of each job and of each version of a cell is nothing, or bounded."""

from __future__ import annotations

import gc
import linecache
import sys
import types
import weakref

import cloudpickle
import pytest

import geoflow as gf
from geoflow.engine import claiming as driving
from geoflow.executors import loaded_code as codes
from geoflow.notebook import monitor
from geoflow.usercode import fingerprint, sources
from geoflow.usercode import packing as transport
from geoflow.usercode.packing import Code
from tests.helpers.sessions import OpenSession


@pytest.mark.parametrize("workers", [0, 1], ids=["inline", "processes"])
def test_a_session_keeps_nothing_of_a_job_that_has_ended(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    session.runtime.claimed = []
    for n in range(3):
        assert session.run("acts", tasks=[{"value": n}]).status == "completed"
    session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}])
    ended = [weakref.ref(run) for run in session.runtime.claimed]
    session.runtime.claimed = None
    gc.collect()
    assert len(ended) == 4
    assert [run for run in ended if run() is not None] == []
    assert session.runtime.active == {}


def test_of_runs_that_an_error_or_an_interrupt_stopped_the_last_are_remembered(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    jobs = [session.run("acts", tasks=[{"value": n}]) for n in range(driving.REMEMBERED + 3)]
    for job in jobs:
        row = job.runtime.row(job.id)
        run = session.runtime.claim(row, session.runtime.registered_as(row), {})
        run.interrupted = True
        session.store.release(run.lease)
        run.finish()
    assert list(session.runtime.active) == [job.id for job in jobs[3:]]


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


def redefined(n: int) -> Code:
    """A function of a cell that was run for the *n*-th time, as it comes to a worker."""
    source = f"def handler(params):\n    return {n}\n"
    space = {"__name__": "__main__"}
    exec(compile(source, f"<ipython-input-worker-{n}>", "exec"), space)
    value = cloudpickle.dumps(space["handler"])
    return Code(f"v{n}", None, value, (), ((f"<ipython-input-worker-{n}>", source),))


def test_a_worker_keeps_the_last_versions_and_the_text_of_their_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "MOST_VERSIONS", 10)
    monkeypatch.setitem(linecache.cache, "<ipython-input-worker-0>", (1, None, ["x"], "<ipython-input-worker-0>"))
    held = codes.Codes()
    functions = []
    for n in range(50):
        code = redefined(n)
        functions.append(weakref.ref(held.get(code)[0]))
        assert held.get(code)[0]({}) == n
    gc.collect()
    assert [n for n in range(50) if held.held(redefined(n)) is not None] == list(range(40, 50))
    assert [n for n, function in enumerate(functions) if function() is not None] == list(range(40, 50))
    texts = [n for n in range(50) if f"<ipython-input-worker-{n}>" in linecache.cache]
    assert texts == [0, *range(40, 50)], "what it did not bring is not its to take away"
    assert held.get(redefined(3))[0]({}) == 3, "what was let go of is loaded again"


def test_code_that_a_worker_has_let_go_of_is_sent_again(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    flows = [flow_of(n) for n in range(codes.MOST_VERSIONS // 3 + 2)]
    for round_, which in enumerate((flows, flows[:2])):
        for n, flow in enumerate(which):
            assert session.run(flow, {"round": round_, "n": n}).result() == {"n": n, "sum": 2 * n + 1}


def flow_of(n: int) -> gf.JobType:
    flow = gf.JobType("let_go", description="x")

    @flow.stage
    def tiles(p: dict[str, int]) -> list[int]:
        return [n, n + 1]

    @flow.each(tiles)
    def measure(tile: int) -> int:
        return tile + 0 * n

    @flow.reduce(measure)
    def total(values: list[int]) -> dict[str, int]:
        return {"n": n, "sum": sum(values)}

    return flow


def test_the_last_trees_are_kept_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_CHARACTERS", 10)
    text = f"x = {list(range(100))}"
    assert sources.parsed(text) is sources.parsed(text)


def test_of_views_the_last_are_known(open_session: OpenSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "WATCHED", 3)
    session = open_session(workers=0)
    jobs = [session.run("acts", tasks=[{"value": n}]) for n in range(6)]
    seen = [monitor.monitor_of(job.runtime, job.id) for job in jobs]
    assert [monitor.monitor_of(job.runtime, job.id) for job in jobs[-3:]] == seen[-3:]
    assert len(monitor._monitors[session.runtime]) == 3
