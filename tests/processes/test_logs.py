"""The log: JSON lines from many processes in one rotating file, with their context, masked, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.errors import ContractViolationError
from geoflow.support import logfile, logs
from tests.helpers.profiles import seldom
from tests.helpers.waiting import wait_until

TOP = Path(logs.__file__).parents[2]
LOG = logging.getLogger("geoflow.test")


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    before = [(logger, logger.level, logger.propagate) for logger in (logs.ROOT, logging.root)]
    yield
    logs.set_fields(None)
    logs.configure(None)
    for logger, level, propagate in before:
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "work.db.log"
    logs.configure(file, "DEBUG")
    return file


def last(path):
    return list(logs.read(path))[-1]


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# One record, one line.


def test_S40_a_line_has_time_level_logger_message_and_what_applies(path):
    fields = {
        "job_id": "a" * 64,
        "job_type": "tile_stats",
        "stage": 2,
        "task_id": "t-1",
        "task_type": "stat",
        "attempt": 1,
        "correlation_id": "c",
        "operation": "dispatch",
        "error_type": "ValueError",
        "error_message": "bad",
        "error_category": "permanent",
        "retryable": False,
        "duration_ms": 1.5,
    }
    LOG.info("task %s of %d", "t-1", 7, extra={**fields, "tiles": [1, 2], "nothing": None})

    logs.flush()
    (record,) = map(json.loads, path.read_text().splitlines())
    assert datetime.fromisoformat(record.pop("time")).utcoffset() == timedelta(0)
    about = {"level": "INFO", "logger": "geoflow.test", "message": "task t-1 of 7"}
    assert record == {**about, **fields, "tiles": [1, 2]}


@dataclass
class Login:
    user: str
    password: str


class Unshowable:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float64(1.5), 1.5),
        (Path("a/b"), "a/b"),
        (10**30, str(10**30)),
        ({1: "a", "b": (1, 2)}, {"1": "a", "b": [1, 2]}),
        ({"deep": "caf\udce9"}, "{'deep': 'caf\\udce9'}"),
        ("a\x00b", "a\x00b"),
        (Unshowable(), "<Unshowable whose __str__ raised RuntimeError>"),
    ],
)
def test_S40_any_extra_value_is_written_as_json_or_as_its_text(path, value, written):
    LOG.info("x", extra={"value": value, "task_id": "t"})

    assert (last(path)["value"], last(path)["task_id"]) == (written, "t")


def test_S40_a_record_that_does_not_fit_is_written_all_the_same(path):
    # Given to the handler itself: pytest's own, which listens to the logger, raises on such records.
    handler = logfile.LogFile(path, logs.JsonLines())
    handler.handle(LOG.makeRecord("x", 20, "", 0, "%d of %d", ("three",), None, extra={"time": "mine", "level": 5}))
    handler.handle(LOG.makeRecord("x", 20, "", 0, "%s", (Unshowable(),), None))
    handler.close()

    first, second = logs.read(path)
    assert first["message"] == "%d of %d ('three',)"
    assert (first["level"], first["level_"], first["time_"]) == ("INFO", 5, "mine")
    assert second["message"].startswith("%s <tuple whose __str__ raised RuntimeError>")


def faulty_exceptions():
    class Mute(Exception):
        __str__ = __repr__ = Unshowable.__str__

    circular = ValueError("first")
    circular.__cause__ = second = KeyError("second")
    second.__cause__ = circular
    yield Mute()
    yield circular
    yield ValueError("x" * 10_000_000)
    yield UnicodeError("caf\udce9\x00")


@pytest.mark.parametrize("error", list(faulty_exceptions()), ids=lambda error: type(error).__name__)
def test_S40_no_exception_is_too_odd_to_be_logged(path, error):
    LOG.error("failed", exc_info=error)

    record = last(path)
    assert record["error_type"] == type(error).__name__
    assert type(error).__name__ in record["traceback"]
    assert path.stat().st_size < 50_000


@given(text=st.text(st.characters()))
def test_S45_any_text_makes_one_line(text):
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "value": text})

    line = logs.JsonLines().format(record)

    line.encode("utf-8")
    assert not [c for c in line if ord(c) < 32]
    assert not [c for c in json.loads(line)["message"] if unicodedata.category(c) == "Cc" and c not in "\n\t"]


def test_S44_secrets_are_masked_in_messages_extras_and_tracebacks(path):
    try:
        raise ConnectionError("postgres://ann:hunter2@db refused")
    except ConnectionError:
        LOG.exception(
            "password=%s",
            "hunter2",
            extra={
                "parameters": {"api_key": "hunter2", "login": Login("ann", "hunter2"), "rows": [{"sas": "hunter2"}]},
                "url": "https://h/x?sig=hunter2",
                "token": "hunter2",
            },
        )

    logs.flush()
    assert "hunter2" not in path.read_text()
    assert last(path)["parameters"] == {
        "api_key": "***",
        "login": {"user": "ann", "password": "***"},
        "rows": [{"sas": "***"}],
    }


def test_S44_what_is_masked_is_a_setting_and_ids_are_never_masked(path):
    LOG.info("the file is open")
    logs.configure(path, secrets=["pin"])
    LOG.info("pin=1 password=2", extra={"task_id": "pin=1", "pin": 3})

    record = last(path)
    assert (record["message"], record["pin"], record["task_id"]) == ("pin=*** password=2", "***", "pin=1")


def test_S40_what_is_bound_is_in_every_record_made_within(path):
    with logs.bind(job_id="j", stage=1):
        with logs.bind(stage=2, task_id="t"):
            LOG.info("inner", extra={"task_id": "own"})
        LOG.info("outer")
    LOG.info("after")

    inner, outer, after = logs.read(path)
    assert (inner["job_id"], inner["stage"], inner["task_id"]) == ("j", 2, "own")
    assert (outer["job_id"], outer["stage"], "task_id" in outer) == ("j", 1, False)
    assert "job_id" not in after


def test_S40_the_fields_of_the_process_reach_the_threads_that_a_handler_starts(path):
    logs.set_fields({"job_id": "j", "task_id": "t1"})
    with logs.bind(task_id="bound"):
        thread = threading.Thread(target=LOG.info, args=("in a thread",))
        thread.start()
        thread.join()
        LOG.info("here")
    logs.set_fields({"task_id": "t2"})
    LOG.info("next task")
    logs.set_fields(None)
    LOG.info("none")

    assert [record.get("task_id") for record in logs.read(path)] == ["t1", "bound", "t2", None]
    assert [record.get("job_id") for record in logs.read(path)] == ["j", "j", None, None]


def run(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_S40_in_a_worker_what_a_handler_logs_gets_its_job_task_and_attempt(path):
    code = """
import logging, os, sys
from geoflow.support import logs
logs.configure_worker(sys.argv[1], "INFO", ("pin",))
logs.set_fields({"job_id": "j", "task_id": "t", "attempt": 2})
logging.getLogger("mything").info("pin=%d", 5)
logging.getLogger("mything").debug("too low")
logging.getLogger("geoflow.executors.worker").warning("own")
logging.warning("root")
"""
    worker = run(code, path)
    out, err = worker.communicate()

    assert (worker.returncode, out, err) == (0, "", "")
    records = [(r["logger"], r["message"], r["job_id"], r["task_id"], r["attempt"]) for r in logs.read(path)]
    assert records == [
        ("mything", "pin=***", "j", "t", 2),
        ("geoflow.executors.worker", "own", "j", "t", 2),
        ("root", "root", "j", "t", 2),
    ]


def test_S40_without_workers_a_handlers_own_loggers_are_heard_for_as_long_as_its_task(path):
    own, before = logging.getLogger("mything"), (logging.root.handlers[:], logging.root.level)
    own.warning("before")
    logs.set_fields({"job_id": "j"})
    logs.set_fields({"job_id": "j", "task_id": "t", "attempt": 2})
    own.info("within")
    LOG.info("once")
    logs.set_fields(None)
    own.warning("after")

    records = [(r["message"], r["job_id"], r["task_id"], r["attempt"]) for r in logs.read(path)]
    assert records == [("within", "j", "t", 2), ("once", "j", "t", 2)]
    assert (logging.root.handlers, logging.root.level) == before


# The file.


def test_S44_the_log_its_lock_and_its_older_files_are_their_owners_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "MAX_BYTES", 200)
    monkeypatch.setattr(logfile, "BACKUPS", 3)
    path = tmp_path / "new" / "work.log"
    before = os.umask(0)
    try:
        logs.configure(path)
        assert mode(path) == 0o600
        for number in range(10):
            LOG.info("line %d", number)
        logs.flush()
    finally:
        os.umask(before)

    modes = {entry.name: mode(entry) for entry in path.parent.iterdir()}
    assert modes == dict.fromkeys([".__work.lock", "work.log", "work.log.1", "work.log.2", "work.log.3"], 0o600)
    assert mode(path.parent) == 0o700


def test_S44_a_log_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "work.log"
    path.write_text("")
    path.chmod(0o644)

    logs.configure(path)

    assert mode(path) == 0o600


def test_the_file_configured_last_is_the_only_one_and_nothing_is_printed(tmp_path, capsys):
    for name in ("a", "b", "b"):
        logs.configure(tmp_path / name)
        LOG.error(name)
    logs.configure(None)
    LOG.error("nowhere")

    assert [record["message"] for record in logs.read(tmp_path / "a")] == ["a"]
    assert [record["message"] for record in logs.read(tmp_path / "b")] == ["b", "b"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "why"), [("file/work.log", "File exists"), ("folder", "not a regular file")])
def test_a_log_that_cannot_be_made_is_told_and_stops_nothing(tmp_path, capsys, name, why):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir(mode=0o755)

    with pytest.warns(RuntimeWarning, match=f"cannot write its log .*{name}: {why}.*log_file=") as told:
        logs.configure(tmp_path / name)
    LOG.error("nowhere")

    assert (len(told), told[0].filename) == (1, __file__)
    assert capsys.readouterr() == ("", "")
    assert list(logs.read(tmp_path / name)) == []
    assert mode(tmp_path / "folder") == 0o755


def test_a_log_that_breaks_later_stays_silent(tmp_path, capsys):
    folder = tmp_path / "gone"
    logs.configure(folder / "work.log")
    shutil.rmtree(folder)

    LOG.error("lost")

    assert capsys.readouterr() == ("", "")
    assert logging.raiseExceptions


WRITER = """
import logging, sys
from geoflow.support import logfile, logs
path, name, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
logfile.MAX_BYTES, logfile.BACKUPS = 100_000, 200
logs.configure_worker(path)
logs.set_fields({"task_id": name})
print("ready", flush=True)
sys.stdin.readline()
for number in range(lines):
    logging.getLogger("mything").info("%s", "é" * (number % 97), extra={"number": number})
    if number == 100:
        print("at work", flush=True)
"""


def start_all(writers):
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()


def numbers_by_writer(records):
    numbers: dict[str, list[int]] = {}
    for record in records:
        assert record["message"] == "é" * (record["number"] % 97)
        numbers.setdefault(record["task_id"], []).append(record["number"])
    return numbers


def test_S40_several_processes_write_one_rotating_file_and_nothing_is_lost_or_garbled(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "BACKUPS", 200)
    path = tmp_path / "work.log"
    writers = [run(WRITER, path, name, 1500) for name in "abcd"]
    start_all(writers)
    for writer in writers:
        _, err = writer.communicate()
        assert (writer.returncode, err) == (0, "")

    assert numbers_by_writer(logs.read(path)) == {name: list(range(1500)) for name in "abcd"}
    assert len(list(tmp_path.glob("work.log.*"))) >= 5
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


def test_S40_a_writer_that_is_killed_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "BACKUPS", 200)
    path = tmp_path / "work.log"
    victim, *others = [run(WRITER, path, "victim", 10**9), run(WRITER, path, "a", 800), run(WRITER, path, "b", 800)]
    start_all([victim, *others])
    assert victim.stdout is not None
    assert victim.stdout.readline() == "at work\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    for writer in others:
        _, err = writer.communicate()
        assert (writer.returncode, err) == (0, "")

    numbers = numbers_by_writer(logs.read(path))
    assert len(numbers["a"]) + len(numbers["b"]) >= 2 * 800 - 1  # half a line of the victim's may have taken one along
    assert numbers["victim"] == list(range(len(numbers["victim"])))


# Written behind who speaks.


def numbers(path):
    """Of each line that is in the file by now."""
    return [int(json.loads(line)["message"]) for line in path.read_text().splitlines()]


def say_all(numbers):
    for n in numbers:
        LOG.info(str(n))


def log_threads():
    return [thread for thread in threading.enumerate() if thread.name == "geoflow-log"]


def test_S40_lines_of_several_threads_are_written_by_one_of_their_own_each_ones_in_order(path):
    threads = [threading.Thread(target=say_all, args=(range(start, start + 500),)) for start in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(numbers(path)) == 1500)

    written = numbers(path)
    for start in (0, 1000, 2000):
        assert [n for n in written if start <= n < start + 500] == list(range(start, start + 500))


def test_S40_the_thread_of_the_log_goes_when_there_is_nothing_to_write_and_comes_again(path, monkeypatch):
    monkeypatch.setattr(logfile, "LINGER_SECONDS", 0.01)
    for n in range(3):
        LOG.info(str(n))
        wait_until(lambda: not log_threads())
        assert numbers(path) == list(range(n + 1))


def test_S40_where_no_thread_can_start_who_speaks_writes(path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    LOG.info("0")

    assert numbers(path) == [0]


def test_S40_a_disk_that_is_slow_does_not_fill_the_memory(path, monkeypatch):
    monkeypatch.setattr(logfile, "MOST_WAITING", 50)
    speaker, file = threading.Thread(target=say_all, args=(range(200),)), logs._file
    assert file is not None
    with logfile._writing:
        speaker.start()
        wait_until(lambda: len(file._waiting) >= 50)
        speaker.join(0.1)
        assert len(file._waiting) <= 51
    speaker.join()
    logs.flush()

    assert numbers(path) == list(range(200))


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError", "atexit.register(LOG.info, '2000')"])
def test_S40_nothing_is_lost_when_the_interpreter_ends(tmp_path, end):
    code = """
import atexit, logging, sys
from geoflow.support import logs
LOG = logging.getLogger("geoflow.test")
logs.configure(sys.argv[1])
for n in range(2000):
    LOG.info(str(n))
"""
    process = run(code + end, tmp_path / "work.log")
    out, err = process.communicate()

    assert out == ""
    assert ("Traceback" in err) == ("ValueError" in end)
    assert numbers(tmp_path / "work.log") == list(range(2001 if "2000" in end else 2000))


def test_S40_of_a_process_that_is_killed_all_but_the_last_moments_are_there(tmp_path):
    code = """
import logging, sys
from geoflow.support import logs
logs.configure(sys.argv[1])
for n in range(300):
    logging.getLogger("geoflow.test").info(str(n))
sys.stdin.readline()
"""
    process = run(code, tmp_path / "work.log")
    wait_until(lambda: (tmp_path / "work.log").exists() and len(numbers(tmp_path / "work.log")) == 300, seconds=60)
    process.kill()
    process.communicate()

    assert numbers(tmp_path / "work.log") == list(range(300))


def test_S40_a_fork_writes_its_own_lines_and_none_of_its_parents(tmp_path):
    code = """
import logging, os, sys, warnings
from geoflow.support import logs
LOG = logging.getLogger("geoflow.test")
logs.configure(sys.argv[1])
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads
children = []
for n in range(200):
    LOG.info(str(n))
    if n % 20 == 0:
        children.append(os.fork())
        if not children[-1]:
            LOG.info(str(1000 + n))
            logs.flush()
            os._exit(0)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    process = run(code, tmp_path / "work.log")
    out, err = process.communicate(timeout=60)

    assert (out, err, process.returncode) == ("", "", 0)
    assert sorted(numbers(tmp_path / "work.log")) == [*range(200), *range(1000, 1200, 20)]


# What user code does to logging as a whole.

ENDS = ["logging.config.dictConfig({'version': 1})", "logging.disable(logging.CRITICAL)"]
ENDS += ["logging.config.dictConfig({'version': 1, 'root': {'level': 'ERROR'}, 'loggers': {'geoflow': {}}})"]


@pytest.mark.parametrize(
    ("workers", "end"),
    [(1, ENDS[0]), (0, ENDS[1]), (1, ENDS[2]), seldom(0, ENDS[0]), seldom(1, ENDS[1]), seldom(0, ENDS[2])],
)
def test_S40_what_user_code_does_to_logging_as_a_whole_does_not_end_the_log(tmp_path, end, workers):
    code = f"""
import logging, logging.config, sys
import geoflow as gf
flow = gf.JobType("flow", description="x")
@flow.stage
def tiles(p: dict) -> list[int]:
    return [0, 1, 2]
@flow.each(tiles)
def measure(t: int, context) -> int:
    if t == 0:
        {end}
    context.logger.info("task %s", t)
    return t
@flow.reduce(measure)
def total(x: list[int]) -> dict:
    return {{}}
session = gf.open(sys.argv[1], workers={workers}, display="none")
for again in range(2):
    lines = session.run(flow, {{"again": again}}).logs()
    print(len(lines), [one for one in lines["message"] if one.startswith("task")])
    {end}
session.close()
session = gf.open(sys.argv[2], workers={workers}, display="none")
lines = session.run(flow).logs()
print(len(lines), [one for one in lines["message"] if one.startswith("task")])
session.close()
"""
    process = run(code, tmp_path / "a.db", tmp_path / "b.db")
    out, err = process.communicate(timeout=60)

    assert err == ""
    assert out.splitlines() == ["8 ['task 0', 'task 1', 'task 2']"] * 3


def test_S40_a_users_own_handler_hears_geoflow_unless_logging_is_disabled(path):
    heard = []

    class Own(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    own, handler = logs.logger_of("geoflow.machine"), Own()
    logs.ROOT.addHandler(handler)
    try:
        own.info("first")
        logging.disable(logging.CRITICAL)
        own.info("second")
    finally:
        logging.disable(logging.NOTSET)
        logs.ROOT.removeHandler(handler)

    assert heard == ["first"]
    assert [record["message"] for record in logs.read(path)] == ["first", "second"]


# Reading.


def test_read_gives_the_rotated_files_oldest_first_and_skips_what_is_no_record(tmp_path):
    path = tmp_path / "work.log"
    for name, text in [(".2", b'{"n":1}\n'), (".1", b'not json\n\n[1]\n{"n":2}\n\xff{"n":\n'), ("", b'{"n":3}\n{"ti')]:
        Path(f"{path}{name}").write_bytes(text)

    assert list(logs.read(path)) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_read_of_a_log_that_does_not_exist_is_empty(tmp_path):
    assert list(logs.read(tmp_path / "none.log")) == []
    assert list(logs.read(tmp_path / "nowhere" / "none.log")) == []


# One failure, one line.


def test_S41_a_failure_is_logged_once_with_its_context(path):
    def work():
        LOG.info("within")
        raise OSError("disk full")

    with (
        pytest.raises(OSError, match="disk"),
        logs.operation("dispatch", job_id="j", job_type="tiles", stage=2, task_id="t", correlation_id="c"),
    ):
        work()

    within, failure = logs.read(path)
    assert (within["operation"], within["task_id"]) == ("dispatch", "t")
    assert failure["level"] == "ERROR"
    assert failure["message"] == "dispatch failed: disk full"
    assert [failure[name] for name in ("operation", "job_id", "job_type", "stage", "task_id", "correlation_id")] == [
        "dispatch", "j", "tiles", 2, "t", "c",
    ]  # fmt: skip
    assert (failure["error_type"], failure["error_message"]) == ("OSError", "disk full")
    assert failure["duration_ms"] >= 0
    assert failure["traceback"].startswith("Traceback")
    assert failure["traceback"].endswith("OSError: disk full")


def test_S41_a_success_and_a_failure_that_is_kept_pass_without_a_word_to_the_caller(path):
    with logs.operation("dispatch"):
        pass
    with logs.operation("tidy", reraise=False):
        raise OSError("x")

    assert [record["operation"] for record in logs.read(path)] == ["tidy"]


def test_S41_operations_within_each_other_log_one_exception_once(path):
    with (
        pytest.raises(ValueError, match="x"),
        logs.operation("run", job_id="j"),
        logs.operation("advance", stage=1),
        logs.operation("plan"),
    ):
        raise ValueError("x")

    (failure,) = logs.read(path)
    assert (failure["operation"], failure["job_id"], failure["stage"]) == ("plan", "j", 1)


def test_S41_another_exception_on_the_way_out_is_a_failure_of_its_own(path):
    def work():
        try:
            with logs.operation("inner"):
                raise ValueError("x")
        except ValueError as error:
            raise RuntimeError("y") from error

    with pytest.raises(RuntimeError), logs.operation("outer"):
        work()

    assert [record["operation"] for record in logs.read(path)] == ["inner", "outer"]


def test_S41_the_callback_is_given_the_exception_and_its_own_failure_is_logged_and_swallowed(path):
    seen = []

    def fail(error):
        seen.append(error)
        raise KeyError("callback")

    with pytest.raises(ValueError, match="x") as raised, logs.operation("plan", job_id="j", on_error=fail):
        raise ValueError("x")

    assert seen == [raised.value]
    first, second = logs.read(path)
    assert first["error_type"] == "ValueError"
    assert (second["error_type"], second["operation"], second["job_id"]) == ("KeyError", "plan", "j")


class TheirContractViolation(Exception):
    pass


TheirContractViolation.__name__ = "ContractViolationError"


@pytest.mark.parametrize("kind", [ContractViolationError, TheirContractViolation])
def test_S41_a_contract_violation_always_passes(path, kind):
    with pytest.raises(kind), logs.operation("tidy", reraise=False):
        raise kind("no success")

    assert last(path)["error_type"] == "ContractViolationError"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_S41_an_interrupt_passes_and_is_no_failure(path, kind):
    called: list[BaseException] = []
    with pytest.raises(kind), logs.operation("run", reraise=False, on_error=called.append):
        raise kind()

    assert called == []
    assert list(logs.read(path)) == []


def test_S40_who_reads_on_gets_each_line_once_also_where_the_log_rotates_meanwhile(tmp_path):
    path = tmp_path / "work.log"
    reading = logs.read_on(path, having="one")

    def add(file, *texts):
        with file.open("a") as out:
            out.write("".join(texts))

    def line(number, job="one"):
        return json.dumps({"n": number, "job": job}) + "\n"

    def read():
        return [record["n"] for record in next(reading)]

    assert read() == []
    add(path, line(1), line(2, "other"), line(3)[:-5])
    assert read() == [1]
    add(path, line(3)[-5:], "nonsense of one\n", line(4))
    assert read() == [3, 4]
    add(path, line(5))
    path.rename(f"{path}.1")
    add(path, line(6))
    assert read() == [5, 6]
    Path(f"{path}.1").rename(f"{path}.2")
    path.rename(f"{path}.1")
    add(path, line(7))
    assert read() == [7]
    assert read() == []
