"""What a task leaves behind in its process, and what the next task there finds of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.commands.listed import Tasks
from tests.helpers import jobs
from tests.helpers.sessions import ROOT, OpenSession, rows
from tests.helpers.waiting import is_running, wait_until


def test_what_each_task_prints_is_its_own_though_the_file_is_cut_short_between_them(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    say, much = {"do": "say", "value": "hello"}, {"do": "print much", "value": 3}
    session.run("acts", tasks=[say, much, say, much, say])
    outputs = [output for (output,) in rows(session, "SELECT output FROM attempts ORDER BY task_id")]
    assert [output for output in outputs if len(output) < 1000] == ["hello\non stderr\nfrom native code\n"] * 3
    assert all("more bytes" in output and "hello" not in output for output in outputs if len(output) > 1000)


def test_the_file_that_prints_go_to_is_not_cut_short_for_each_of_them(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    session.run("acts", tasks=[{"do": "say", "value": "hello"}] * 3)
    (file,) = Path(session.runtime.executor.where() or "").glob("*.out")
    assert file.stat().st_size >= 3 * len("hello\non stderr\nfrom native code\n")


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_S22_what_a_task_printed_before_it_was_stopped_is_kept(
    open_session: OpenSession, tmp_path: Path, end: str
) -> None:
    session, begun = open_session(workers=1), tmp_path / "begun"
    tasks = [{"do": "say", "value": "first"}, {"do": "say then hang", "value": [str(begun), "second"]}]
    job = session.submit("acts", tasks=tasks)
    wait_until(begun.exists)
    job.cancel() if end == "cancel" else session.close()
    found = rows(open_session(workers=1), "SELECT outcome, output FROM attempts WHERE task_id = 's1-t1'")
    assert found == [("cancelled" if end == "cancel" else "interrupted", "second\n")]


LOOK = "import decimal, faulthandler, gc, locale, logging, os, resource, signal, socket, sys, threading, warnings\n"
LIMIT = "resource.RLIMIT_NOFILE, "
# By name: what a task does, and how another one sees whether it was done.
PUT_BACK = {
    "folder": ("os.chdir('/')", "os.getcwd()"),
    "umask": ("os.umask(0o777)", "[os.umask(0o77), os.umask(0o22)]"),
    "new variable": ("os.environ['LEFT'] = 'x'", "os.environ.get('LEFT')"),
    "changed variable": ("os.environ['PATH'] = 'x'", "os.environ['PATH']"),
    "changed time zone": ("os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()", "time.localtime(0).tm_hour"),
    "deleted variable": ("del os.environ['PATH']", "os.environ.get('PATH')"),
    "no environment": ("os.environ.clear()", "len(os.environ)"),
    "module path": ("sys.path.append('/x')", "sys.path"),
    "another module path": ("sys.path = []", "sys.path"),
    "ignored signal": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "str(signal.getsignal(signal.SIGTERM))"),
    "interrupts": ("signal.signal(signal.SIGINT, signal.SIG_DFL)", "str(signal.getsignal(signal.SIGINT))"),
    "blocked signal": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
        "list(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    ),
    "alarm": ("signal.alarm(60)", "signal.getitimer(signal.ITIMER_REAL)"),
    "timer": ("signal.setitimer(signal.ITIMER_VIRTUAL, 60)", "signal.getitimer(signal.ITIMER_VIRTUAL)"),
    "limit": (f"resource.setrlimit({LIMIT} (64, resource.getrlimit({LIMIT})[1]))", f"resource.getrlimit({LIMIT})"),
    "recursion limit": ("sys.setrecursionlimit(200)", "sys.getrecursionlimit()"),
    "limit of digits": ("sys.set_int_max_str_digits(0)", "sys.get_int_max_str_digits()"),
    "collector": ("gc.disable()", "gc.isenabled()"),
    "collector's threshold": ("gc.set_threshold(0)", "gc.get_threshold()"),
    "locale": ("locale.setlocale(locale.LC_CTYPE, 'C')", "locale.setlocale(locale.LC_ALL)"),
    "decimals": ("decimal.getcontext().prec = 3", "decimal.getcontext().prec"),
    "another decimal context": ("decimal.setcontext(decimal.BasicContext)", "str(decimal.Decimal(2) / 3)"),
    "socket timeout": ("socket.setdefaulttimeout(0.5)", "socket.getdefaulttimeout()"),
    "logging": ("logging.disable(logging.CRITICAL)", "logging.root.manager.disable"),
    "warnings": ("warnings.simplefilter('error')", "[str(one) for one in warnings.filters]"),
    "no warnings' filters": ("warnings.resetwarnings()", "[str(one) for one in warnings.filters]"),
    "fault handler": ("faulthandler.disable()", "faulthandler.is_enabled()"),
    "trace": ("sys.settrace(lambda *args: None)", "str(sys.gettrace())"),
    "profile": ("sys.setprofile(lambda *args: None)", "str(sys.getprofile())"),
    "hook": ("sys.excepthook = print; time.sleep(0.002)", "str(sys.excepthook)"),
    "threads' hook": ("threading.excepthook = print; time.sleep(0.002)", "str(threading.excepthook)"),
    "input": ("sys.stdin = None; time.sleep(0.002)", "str(type(sys.stdin))"),
    "output": ("sys.stdout = io.StringIO()", "print('seen')"),
    "no output": ("sys.stdout = sys.stderr = None", "print('seen')"),
    "closed output": ("sys.stdout.close()", "print('seen')"),
    "closed descriptor": ("os.close(1)", "print('seen')"),
    "output elsewhere": ("os.dup2(os.open('/dev/null', os.O_RDWR), 1)", "print('seen')"),
    "numpy's errors": ("numpy.seterr(all='raise')", "numpy.geterr()"),
}


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gf.Session]:
    """A session that all of these tests share, so that each also finds what the ones before it left."""
    session = gf.open(tmp_path_factory.mktemp("one") / "work.db", workers=1, display="none")
    session.register(jobs)
    yield session
    session.close()


def tell(session: gf.Session, *sources: str, imports: str = LOOK + "import io, time, numpy, random\n") -> list[Any]:
    """What tasks that run *sources* tell, with their outputs and their workers; of one chunk, but for the first few."""
    tasks: list[dict[str, Any]] = [{}] * 200 + [{"do": "tell", "value": f"{imports}{source}"} for source in sources]
    job = session.run("acts", tasks=tasks, at=str(time.monotonic()))
    assert job.status == "completed", job.error
    sql = (
        "SELECT t.result, output, pid FROM attempts JOIN tasks t USING (task_key) WHERE t.job_id = ? ORDER BY task_key"
    )
    return [(json.loads(result)["result"]["told"], *rest) for result, *rest in rows(session, sql, job.id)[200:]]


@pytest.mark.parametrize("name", PUT_BACK)
def test_what_a_task_changes_of_its_process_is_put_back_before_the_next(one_worker: gf.Session, name: str) -> None:
    change, look = PUT_BACK[name]
    before, _, after = tell(one_worker, f"told = {look}", change, f"told = {look}")
    assert after == before
    assert name not in ("output", "no output", "closed output") or after[1] == "seen\n"


def test_a_short_task_that_changes_something_is_not_followed_by_one_that_sees_it(one_worker: gf.Session) -> None:
    found = tell(one_worker, *["told = [os.getcwd(), os.umask(0o777)]; os.chdir('/')"] * 50)
    assert found == [found[0]] * 50


@pytest.mark.parametrize(
    ("seed", "draw"), [("random.seed(7)", "random.random()"), ("numpy.random.seed(7)", "numpy.random.rand()")]
)
def test_a_seed_that_one_task_set_is_not_the_next_ones(one_worker: gf.Session, seed: str, draw: str) -> None:
    found = tell(one_worker, *[seed, f"told = {draw}"] * 2)
    assert found[1][0] != found[3][0]
    assert found[1][2] == found[3][2]


def test_what_a_module_sets_when_it_is_imported_stays(one_worker: gf.Session, tmp_path: Path) -> None:
    (tmp_path / "settings_of_mine.py").write_text(
        "import decimal, os, sys, warnings\n"
        "os.environ['MINE'] = 'x'\nsys.setrecursionlimit(3000)\ndecimal.getcontext().prec = 60\n"
        "warnings.simplefilter('ignore', ResourceWarning)\n"
    )
    look = "[os.environ.get('MINE'), sys.getrecursionlimit(), decimal.getcontext().prec, len(warnings.filters)]"
    load = f"sys.path.append({str(tmp_path)!r}); import settings_of_mine; os.environ['TASKS'] = 'x'; told = {look}"
    first, second = tell(one_worker, load, f"told = {look}; assert 'TASKS' not in os.environ")
    assert first == second
    assert first[0][:3] == ["x", 3000, 60]


FILES = "sys.kept = [*getattr(sys, 'kept', ()), *(open('/dev/null') for _ in range({}))]"
THREAD = "threading.Thread(target=time.sleep, args=(60,), daemon={}).start()"


@pytest.mark.parametrize("change", [FILES.format(400), THREAD.format(False)])
def test_a_worker_that_cannot_be_put_right_is_replaced_and_ended_and_nothing_is_charged(
    one_worker: gf.Session, change: str
) -> None:
    found = tell(one_worker, "", change, "", "")
    workers = [pid for _, _, pid in found]
    assert workers[0] == workers[1] != workers[2] == workers[3]
    wait_until(lambda: not is_running(workers[0]))


@pytest.mark.parametrize(
    "change",
    [
        FILES.format(20),
        THREAD.format(True),
        "from concurrent.futures import ThreadPoolExecutor as Pool; sys.pool = Pool(); sys.pool.submit(int).result()",
        "thread = threading.Thread(target=int); thread.start()",
    ],
)
def test_a_worker_is_not_replaced_for_what_libraries_keep(one_worker: gf.Session, change: str) -> None:
    found = tell(one_worker, *[change] * 2, "")
    assert len({pid for _, _, pid in found}) == 1


def test_tasks_that_leave_more_files_open_than_a_process_may_have_all_complete(tmp_path: Path) -> None:
    code = f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        sys.path.insert(0, {ROOT!r})
        from tests.helpers import jobs; import geoflow as gf
        session = gf.open({str(tmp_path / "w.db")!r}, workers=1, display="none", max_retries=0)
        session.register(jobs)
        leak = "import sys; sys.kept = [*getattr(sys, 'kept', ()), open('/dev/null')]"
        job = session.run("acts", tasks=[{{"do": "tell", "value": leak}}] * 400)
        print(job.status)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True, timeout=100
    )
    assert found.stdout == "completed\n", found.stderr


def test_a_warning_is_shown_once_an_attempt_and_not_once_a_worker(one_worker: gf.Session, tmp_path: Path) -> None:
    (tmp_path / "warns_often.py").write_text("import warnings\ndef go():\n    warnings.warn('mind the gap')\n")
    call = f"sys.path.append({str(tmp_path)!r}); import warns_often; [warns_often.go() for _ in range(3)]"
    two = f"{call}; import warnings; warnings.warn('another', RuntimeWarning)"
    outputs = [
        output for _, output, _ in tell(one_worker, call, call, two, "print('Warning: 3: not UserWarning: one')")
    ]
    assert [output.count("mind the gap") for output in outputs] == [2, 2, 2, 0]  # the line of code has it as well
    latest = one_worker.store.latest()
    assert latest is not None
    job = one_worker.job(latest.job_id)
    assert job.tasks()["warnings"].tolist()[-5:] == [0, 1, 1, 2, 0]
    listed = Tasks(one_worker.runtime, job, None, None, None)
    assert [row["warnings"] for row in listed.document()][-5:] == [0, 1, 1, 2, 0]


def test_workers_draw_different_random_numbers_also_of_what_was_preloaded(open_session: OpenSession) -> None:
    session = open_session(workers=3, preload=("numpy",))
    draw = "import random, numpy, time; told = [random.random(), numpy.random.rand()]; time.sleep(0.2)"
    session.run("acts", tasks=[{"do": "tell", "value": draw}] * 6)
    found = [json.loads(result)["result"]["told"] for (result,) in rows(session, "SELECT result FROM tasks")]
    assert len({number for numbers in found for number in numbers}) == 12
    assert len(rows(session, "SELECT DISTINCT pid FROM attempts")) > 1


def test_all_tasks_of_a_job_see_what_the_driver_had_when_it_was_submitted(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=2)
    look = "import os, sys, time; told = [os.getcwd(), os.environ.get('OF_NOW'), sys.path[-1]]; time.sleep(0.05)"
    session.run("acts", tasks=[{"do": "tell", "value": look}])  # one worker starts
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("OF_NOW", name)
        monkeypatch.setattr(sys, "path", [*sys.path, ""])
        job = session.run("acts", tasks=[{"do": "tell", "value": look}] * 6, name=name)
        found = rows(session, "SELECT result FROM tasks WHERE job_id = ?", job.id)
        here = str(tmp_path / name)
        assert [json.loads(result)["result"]["told"] for (result,) in found] == [[here, name, here]] * 6


def test_a_job_whose_folder_is_gone_says_so_and_runs_again_once_it_is_there(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=1, max_retries=0)
    session.run("acts", tasks=[{}])
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(os, "getcwd", lambda: str(gone))  # as it was when the job was submitted
    job = session.run("acts", tasks=[{}, {}])
    assert "in which the job was submitted, cannot be entered" in (job.error or "")
    gone.mkdir()
    job.resume().wait()
    assert job.status == "completed"


def test_workers_are_replaced_by_age_while_the_job_goes_on(open_session: OpenSession) -> None:
    session = open_session(workers=1, worker_max_tasks=5)
    job = session.run("acts", tasks=[{"do": "sleep", "value": 0.05}] * 60)
    assert job.status == "completed"
    workers = [pid for (pid,) in rows(session, "SELECT pid FROM attempts ORDER BY task_index")]
    assert len(set(workers)) > 2
    assert rows(session, "SELECT max(attempt) FROM attempts") == [(1,)]
    wait_until(lambda: sum(map(is_running, set(workers))) <= 1)


def test_workers_are_replaced_by_size_and_nothing_is_charged(open_session: OpenSession) -> None:
    session = open_session(workers=1, worker_max_memory=200)
    leak = "import sys, time; sys.kept = [*getattr(sys, 'kept', ()), b'x' * 40_000_000]; time.sleep(0.05)"
    assert session.run("acts", tasks=[{"do": "tell", "value": leak}] * 40).status == "completed"
    assert len(rows(session, "SELECT DISTINCT pid FROM attempts")) > 1
    assert rows(session, "SELECT max(attempt), max(peak_memory) < 1000000000 FROM attempts") == [(1, 1)]


def test_S46_a_variable_that_libraries_read_once_reaches_the_next_job_with_new_workers(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=1)
    source = "import os\nif not hasattr(os, 'loaded'): os.loaded = os.environ['GDAL_NUM_THREADS']\n"
    look = {"do": "tell", "value": f"{source}told = [os.loaded, os.environ.get('OTHER')]"}
    found, values = [], (("1", "a"), ("1", "b"), ("4", "b"))
    for threads, other in values:
        monkeypatch.setenv("GDAL_NUM_THREADS", threads)
        monkeypatch.setenv("OTHER", other)
        job = session.run("acts", tasks=[look, look], threads=threads, other=other)
        told = rows(session, "SELECT result FROM tasks WHERE job_id = ?", job.id)
        (pid,) = rows(session, "SELECT DISTINCT pid FROM attempts WHERE job_id = ?", job.id)
        found.append(([json.loads(result)["result"]["told"] for (result,) in told], pid))
    assert [told for told, _ in found] == [[[threads, other]] * 2 for threads, other in values]
    assert found[0][1] == found[1][1] != found[2][1]
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome <> 'completed'") == [(0,)]


def test_what_a_later_session_preloads_is_imported_once_for_its_workers_and_bounded_as_they_are(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import os\npid, threads = os.getpid(), os.environ.get('OMP_NUM_THREADS')\n"
    (tmp_path / "imported_early.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    first = open_session("first.db", workers=1)
    first.run("acts", tasks=[{}])  # the fork server runs
    second = open_session(workers=2, preload=("imported_early",))
    look = "import imported_early as it, os, time; told = [it.pid, it.threads, os.getpid()]; time.sleep(0.1)"
    second.run("acts", tasks=[{"do": "tell", "value": look}] * 4)
    found = [json.loads(result)["result"]["told"] for (result,) in rows(second, "SELECT result FROM tasks")]
    assert len({imported_by for imported_by, _, _ in found}) == 1
    assert {threads for _, threads, _ in found} == {"1"}
    assert len({pid for _, _, pid in found} - {found[0][0]}) == 2
    assert first.run("acts", tasks=[{}, {}]).status == "completed"


def test_a_module_that_cannot_be_preloaded_is_told_of_and_is_in_no_other_sessions_way(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_early.py").write_text("raise ValueError('no licence')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    job = open_session("one.db", workers=1, preload=("raises_early",)).run("acts", tasks=[{}])
    assert "Worker processes cannot start" in (job.error or "")
    assert "raises_early.py" in (job.error or "")
    assert "no licence" in (job.error or "")
    assert open_session("other.db", workers=1).run("acts", tasks=[{}]).status == "completed"
