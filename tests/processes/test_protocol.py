"""What travels between driver and worker, each message of it lost, late and twice: see docs/internals.md."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError, computed_field, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from geoflow.core.chunks import Chunk
from geoflow.executors.child import Setup
from geoflow.executors.loaded_code import Held
from geoflow.executors.marker import MarkFile
from geoflow.executors.worker_process import WorkerProcess
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

Send = Callable[[WorkerProcess, Chunk], Future[Any]]
OUTCOMES = "SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1"
_send: Send = WorkerProcess.submit
SOON = 3.0  # a process starts in a tenth of that, also on a machine that has much else to do


def _later(then: Callable[[], object]) -> None:
    threading.Timer(SOON + 1.0, then).start()


def _chunk_lost(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    process.started = True
    return Future()


def _chunk_late(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    process.started = True
    _later(lambda: _send(process, chunk))
    return Future()


def _chunk_twice(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    future = _send(process, chunk)
    _send(process, chunk)
    return future


def _answer_lost(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    _send(process, chunk)
    return Future()


def _answer_late(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    late: Future[Any] = Future()
    _send(process, chunk).add_done_callback(
        lambda done: _later(lambda: late.set_result(None if done.cancelled() or done.exception() else done.result()))
    )
    return late


def _answer_twice(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    class Twice(Future[Any]):
        def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
            super().add_done_callback(fn)
            super().add_done_callback(fn)

    future = Twice()
    _send(process, chunk).add_done_callback(lambda done: future.set_result(done.result()))
    return future


def _code_lost(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    return _send(process, chunk._replace(code=chunk.code.name_only()))


def _word_of_the_code_lost(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    future: Future[Any] = Future()
    _send(process, chunk).add_done_callback(lambda done: future.set_result((*done.result()[:-1], None)))
    return future


def _believed_too_early(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
    process.holds(Held(chunk.code.version, chunk.code.fingerprint, chunk.code.modules))
    return _send(process, chunk)


# What becomes of a chunk of one task when its message has this fate, once: (attempts that count, executions).
FATES: dict[str, tuple[Send, list[tuple[str, int]], int]] = {
    "the chunk is lost": (_chunk_lost, [("completed", 3)], 3),
    "the chunk comes too late": (_chunk_late, [("completed", 3)], 3),
    "the chunk comes twice": (_chunk_twice, [("completed", 3)], 3),
    "the answer is lost": (_answer_lost, [("completed", 3)], 3),
    "the answer comes too late": (_answer_late, [("completed", 3)], 3),
    "the answer comes twice": (_answer_twice, [("completed", 3)], 3),
    "the code is lost": (_code_lost, [("completed", 3)], 3),
    "the word that the code is there is lost": (_word_of_the_code_lost, [("completed", 3)], 3),
    "the code is believed to be there and is not": (_believed_too_early, [("completed", 3)], 3),
}


@pytest.fixture
def fate(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[int]]:
    """Give the first chunk of a kind a fate; the numbers of the chunks that had it."""

    def give(kind: str, name: str) -> list[int]:
        had: list[int] = []

        def submit(process: WorkerProcess, chunk: Chunk) -> Future[Any]:
            if chunk.kind != kind or had:
                return _send(process, chunk)
            had.append(chunk.number)
            return FATES[name][0](process, chunk)

        monkeypatch.setattr(WorkerProcess, "submit", submit)
        return had

    return give


@pytest.mark.parametrize("name", FATES)
def test_S36_a_task_whose_message_has_a_fate_is_accounted_for_and_its_job_completes(
    open_session: OpenSession, fate: Callable[[str, str], list[int]], trace: Trace, name: str
) -> None:
    had = fate("tasks", name)
    session = open_session(workers=1, start_timeout=SOON, base_delay=0.01)
    job = session.run("acts", tasks=[{"value": n, "trace": trace.path} for n in range(3)])
    assert had
    assert job.status == "completed", job.error
    _, outcomes, executions = FATES[name]
    assert rows(session, OUTCOMES) == outcomes
    assert len(trace.lines()) == executions
    assert job.result()["values"] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["plan", "finalize"])
@pytest.mark.parametrize("name", ["the chunk is lost", "the answer comes twice", "the code is lost"])
def test_S36_a_plan_or_finalize_whose_message_has_a_fate_is_asked_for_again(
    open_session: OpenSession, fate: Callable[[str, str], list[int]], kind: str, name: str
) -> None:
    had = fate(kind, name)
    session = open_session(workers=1, start_timeout=SOON)
    job = session.run("acts", tasks=[{"value": 1}, {"value": 2}])
    assert had
    assert job.result()["values"] == [1, 2]


@pytest.mark.parametrize("name", ["the answer is lost", "the answer comes too late"])
def test_S30_a_plan_whose_answer_does_not_come_is_made_once_more(
    open_session: OpenSession, fate: Callable[[str, str], list[int]], name: str
) -> None:
    fate("plan", name)
    job = open_session(workers=1, start_timeout=SOON).run("acts", tasks=[{"value": 1}])
    assert job.result()["values"] == [1]


def test_a_worker_that_is_never_heard_of_is_given_up_and_the_job_says_why(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark is in a file that nobody reads."""
    from geoflow.executors.processes import ProcessExecutor

    def setup(self: ProcessExecutor, mark: Path, output: Path) -> Setup:
        MarkFile(tmp_path / mark.name)
        return real(self, tmp_path / mark.name, output)

    real = ProcessExecutor._setup
    monkeypatch.setattr(ProcessExecutor, "_setup", setup)
    job = open_session(workers=1, start_timeout=0.5).run("acts", tasks=[{"do": "hang"}])
    assert job.status == "failed"
    assert "3 in a row ended before any work. a worker process was to start, and gave no sign of life" in str(job.error)


def test_S36_a_job_that_fails_as_one_slot_cannot_start_leaves_no_task_running_in_another(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoflow.executors.processes import ProcessExecutor

    def setup(self: ProcessExecutor, mark: Path, output: Path) -> Setup:
        MarkFile(tmp_path / mark.name)
        return real(self, tmp_path / mark.name if "slot-1-" in mark.name else mark, output)

    real = ProcessExecutor._setup
    monkeypatch.setattr(ProcessExecutor, "_setup", setup)
    session = open_session(workers=2, start_timeout=SOON)
    job = session.run("acts", tasks=[{"do": "hang"}, {"do": "hang"}])
    assert "3 in a row ended before any work" in str(job.error)
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("queued", 2)]
    assert rows(session, OUTCOMES) == [("interrupted", 1)]


def test_S36_a_worker_that_is_stopped_before_it_begins_is_replaced(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=1, start_timeout=SOON)
    session.run("acts", tasks=[{}])
    ((pid,),) = rows(session, "SELECT DISTINCT pid FROM attempts")
    os.kill(pid, signal.SIGSTOP)
    job = session.run("acts", tasks=[{"value": 1}, {"value": 2}])
    assert job.status == "completed", job.error
    assert rows(session, OUTCOMES) == [("completed", 3)], "and nothing was charged"


@pytest.mark.parametrize("where", ["preload", "code"])
def test_an_import_that_hangs_in_a_worker_fails_the_job_and_is_named(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"hangs_in_{where}"
    loads = "import os, time\nif os.environ.get('GEOFLOW_TEST_HANG'): time.sleep(60)\n"
    (tmp_path / f"{module}.py").write_text(loads + "def act(params): return {'success': True, 'result': {'value': 1}}")
    options: dict[str, Any] = {"preload": (module,)} if where == "preload" else {}
    session = open_session(workers=1, start_timeout=SOON, **options)
    handler = __import__(module).act if where == "code" else jobs.act
    session.register(jobs.Acts, {"act": handler})
    monkeypatch.setenv("GEOFLOW_TEST_HANG", "1")
    job = session.run("acts", tasks=[{}])
    assert job.status == "failed"
    said = {"preload": "import what preload names", "code": "was to load the code of act"}[where]
    assert said in str(job.error)
    assert f"gave no sign of life for {SOON:g} s (start_timeout)" in str(job.error)
    assert f"{module}.py" in str(job.error), "the stack says where"


def test_a_thread_that_the_pool_could_not_start_costs_a_process_and_no_attempt(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start
    refused: list[str] = []

    def start(self: threading.Thread) -> None:
        if self.name.startswith("QueueFeeder") and not refused:
            refused.append(self.name)
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    session = open_session(workers=1)
    assert session.run("acts", tasks=[{}, {}]).status == "completed"
    assert refused
    assert rows(session, OUTCOMES) == [("completed", 2)]


def test_S30_a_plan_that_kills_its_worker_once_is_made_again(open_session: OpenSession, tmp_path: Path) -> None:
    class Kills(jobs.Acts):
        job_type = "kills"
        died = str(tmp_path / "died")

        @classmethod
        def create_tasks_for_stage(cls, stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
            if not os.path.exists(cls.died):
                open(cls.died, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return jobs.Acts.create_tasks_for_stage(stage, job_params, job_id, previous_results)

    session = open_session(workers=1)
    session.register(Kills, {"act": jobs.act})
    assert session.run("kills", tasks=[{}]).status == "completed"


def test_S23_code_that_could_not_be_loaded_at_first_is_sent_once_more(
    open_session: OpenSession, tmp_path: Path
) -> None:
    class Licence:
        def __reduce__(self) -> Any:
            return _ask_for, (str(tmp_path / "asked"),)

    licence = Licence()

    def act(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"value": str(licence)}}

    session = open_session(workers=1, base_delay=0.01)
    session.register(jobs.Acts, {"act": act})
    job = session.run("acts", tasks=[{}, {}])
    assert job.result()["values"] == ["a licence", "a licence"]
    assert rows(session, "SELECT outcome, error_type, error_category FROM attempts ORDER BY 1, 2") == [
        ("completed", None, None),
        ("completed", None, None),
        ("failed", "ConnectionError", "transient"),
    ]


def _ask_for(asked: str) -> str:
    if not os.path.exists(asked):
        open(asked, "w").close()
        raise ConnectionError("the licence server was not reached")
    return "a licence"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("x = = 1\n", "SyntaxError"),
        ("import not_there_at_all\n", "ModuleNotFoundError"),
    ],
)
def test_S23_code_that_cannot_be_loaded_is_permanent_and_shown_as_what_it_is(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"load_{kind.lower()}_{len(text)}.py"
    path.write_text("def act(params): return {'success': True, 'result': {'value': 1}}\n")
    session = open_session(workers=1)
    session.register(jobs.Acts, {"act": __import__(path.stem).act})
    path.write_text(text)
    job = session.run("acts", tasks=[{}])
    assert rows(session, "SELECT outcome, error_type, error_category FROM attempts") == [("failed", kind, "permanent")]
    assert kind in str(job.error)


def test_the_attempt_records_the_code_that_was_loaded_though_the_module_was_edited_while_the_job_ran(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "edited_meanwhile.py"
    source = (
        "import os, time\n"
        "def act(params, context):\n"
        "    if params.get('die') and context.attempt == 1:\n"
        "        while not os.path.exists(params['die']): time.sleep(0.01)\n"
        "        os._exit(1)\n"
        "    return {'success': True, 'result': {'value': 'old'}}\n"
    )
    path.write_text(source)
    session = open_session(workers=1, base_delay=0.01)
    session.register(jobs.Acts, {"act": __import__(path.stem).act})
    go = tmp_path / "go"
    job = session.submit("acts", tasks=[{}, {"die": str(go)}, {}])
    wait_until(lambda: bool(rows(session, "SELECT 1 FROM tasks WHERE status = 'completed'")))
    path.write_text(source.replace("'old'", "'new'"))
    go.touch()
    job.wait(timeout=60)
    results = "tasks JOIN attempts USING (task_id) WHERE outcome = 'completed'"
    codes = dict(rows(session, f"SELECT result ->> '$.result.value', attempts.code FROM {results}"))
    assert codes.keys() == {"old", "new"}
    assert codes["old"] != codes["new"]
    assert len(rows(session, "SELECT DISTINCT pid FROM attempts")) == 2, "and no process was replaced for it"


def test_models_that_refer_to_each_other_arrive_by_value_and_validate(open_session: OpenSession) -> None:
    class Window(BaseModel):
        x: int = 0
        inner: list[Window] = []

        @field_validator("x")
        @classmethod
        def _doubled(cls, value: int) -> int:
            return 2 * value

        @computed_field  # type: ignore[prop-decorator]
        @property
        def area(self) -> int:
            return self.x * 10

    @pydantic_dataclass
    class Grid:
        window: Window
        windows: dict[str, Window]

    class Params(BaseModel):
        windows: list[Window] = []
        table: dict[str, Window] = {}
        grid: Grid | None = None

    class More(Params):
        default: Window = Window(x=3)

    def act(params: dict[str, Any]) -> dict[str, Any]:
        made = More.model_validate(params["value"])
        try:
            Window.model_validate({"x": "no number"})
        except ValidationError as exc:
            return {"success": True, "result": {"value": [made.model_dump(mode="json"), exc.error_count()]}}
        return {"success": False, "error": "it let it pass"}

    session = open_session(workers=1, max_retries=0)
    session.register(jobs.Acts, {"act": act})
    one = {"x": 1}
    value = {"windows": [{"x": 5, "inner": [one]}], "table": {"a": one}, "grid": {"window": one, "windows": {"b": one}}}
    (found, errors) = session.run("acts", tasks=[{"value": value}]).result()["values"][0]
    assert errors == 1
    assert found == More.model_validate(value).model_dump(mode="json")
    assert found["windows"][0]["area"] == 100
