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
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoflow import logs
from geoflow.errors import ContractViolationError

TOP = Path(logs.__file__).parents[1]
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

    (line,) = path.read_text().splitlines()
    record = json.loads(line)

    time = datetime.fromisoformat(record.pop("time"))
    assert time.utcoffset() == datetime.now(UTC).utcoffset()
    assert line.startswith('{"time":"')
    assert record == {
        "level": "INFO",
        "logger": "geoflow.test",
        "message": "task t-1 of 7",
        **fields,
        "tiles": [1, 2],
    }


def test_S40_the_time_is_the_records_in_utc_with_milliseconds():
    record = logging.makeLogRecord({"msg": "x", "created": 1_700_000_000.25})

    assert json.loads(logs.JsonLines().format(record))["time"] == "2023-11-14T22:13:20.250Z"


def test_S40_an_exception_is_kept_with_its_type_message_and_traceback(path):
    try:
        raise ConnectionError("no route")
    except ConnectionError:
        LOG.exception("fetch failed")

    record = last(path)
    assert (record["error_type"], record["error_message"]) == ("ConnectionError", "no route")
    assert record["traceback"].startswith("Traceback")
    assert record["traceback"].endswith("ConnectionError: no route")


@dataclass
class Login:
    user: str
    password: str


class Hostile(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


class Unshowable:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), None),
        (np.float64(1.5), 1.5),
        (np.int32(7), 7),
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

    record = last(path)
    assert record["value" if written is not None else "message"] == (written if written is not None else "x")
    assert record["task_id"] == "t"


def test_S40_a_record_that_does_not_fit_is_written_all_the_same(path):
    # Given to the handler itself: pytest's own, which listens to the logger, raises on such records.
    handler = logs.LogFile(path)
    handler.handle(LOG.makeRecord("x", 20, "", 0, "%d of %d", ("three",), None, extra={"time": "mine", "level": 5}))
    handler.handle(LOG.makeRecord("x", 20, "", 0, "%s", (Unshowable(),), None))
    handler.handle(LOG.makeRecord("x", 20, "", 0, "hostile", (), None, extra={"value": Hostile(), "n": 1}))
    handler.close()

    first, second, third = logs.read(path)
    assert first["message"] == "%d of %d three"
    assert (first["level"], first["level_"], first["time_"]) == ("INFO", 5, "mine")
    assert second["message"] == "%s <Unshowable whose __str__ raised RuntimeError>"
    assert (third["message"], third["value"], third["n"]) == ("hostile", "<Hostile that raised RuntimeError>", 1)


def faulty_exceptions():
    class Mute(Exception):
        __str__ = __repr__ = Unshowable.__str__

    circular = ValueError("first")
    circular.__cause__ = second = KeyError("second")
    second.__cause__ = circular
    yield Mute()
    yield circular
    yield ExceptionGroup("several", [ValueError("a"), ExceptionGroup("more", [OSError("b")])])
    yield ValueError("x" * 10_000_000)
    yield UnicodeError("caf\udce9\x00")


@pytest.mark.parametrize("error", list(faulty_exceptions()), ids=lambda error: type(error).__name__)
def test_S40_no_exception_is_too_odd_to_be_logged(path, error):
    LOG.error("failed", exc_info=error)

    record = last(path)
    assert record["error_type"] == type(error).__name__
    assert type(error).__name__ in record["traceback"]
    assert path.stat().st_size < 50_000


@settings(deadline=None)
@given(message=st.text(st.characters()), value=st.text(st.characters()))
def test_S45_any_text_makes_one_line_that_no_terminal_obeys(message, value):
    record = logging.makeLogRecord({"msg": "%s", "args": (message,), "value": value, "task_id": value})

    line = logs.JsonLines().format(record)

    line.encode("utf-8")
    written = json.loads(line)
    assert isinstance(written["message"], str)
    if not any("\ud800" <= c <= "\udfff" for c in message + value):
        assert written["task_id"] == value
    assert not [c for c in line if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\u202e\u200b\ufeff"]


def test_S45_escapes_in_a_message_are_kept_and_escaped(path):
    LOG.info("\x1b[31mred\r\x9b0m \u202egnp")

    assert b"\x1b" not in path.read_bytes()
    assert "\x9b".encode() not in path.read_bytes()
    assert last(path)["message"] == "\x1b[31mred\r\x9b0m \u202egnp"


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

    assert "hunter2" not in path.read_text()
    assert last(path)["parameters"] == {
        "api_key": "***",
        "login": "Login(user='ann', password='***')",
        "rows": [{"sas": "***"}],
    }


def test_S44_what_is_masked_is_a_setting_and_ids_are_never_masked(path):
    LOG.info("the file is open")
    logs.configure(path, secrets=["pin"])
    LOG.info("pin=1 password=2", extra={"task_id": "pin=1", "pin": 3})

    record = last(path)
    assert (record["message"], record["pin"], record["task_id"]) == ("pin=*** password=2", "***", "pin=1")


# Context.


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
from geoflow import logs
logs.configure(sys.argv[2], "INFO")       # as if the parent's state had come along
logs.configure_worker(sys.argv[1], "INFO", ("pin",))
logs.configure_worker(sys.argv[1], "INFO", ("pin",))
assert "concurrent_log_handler" not in sys.modules
logs.set_fields({"job_id": "j", "task_id": "t", "attempt": 2})
logging.getLogger("mything").info("pin=%d", 5)
logging.getLogger("mything").debug("too low")
logging.getLogger("geoflow.worker").warning("own")
logging.warning("root")
"""
    worker = run(code, path, path.parent / "other.log")
    out, err = worker.communicate()

    assert (worker.returncode, out, err) == (0, "", "")
    assert (path.parent / "other.log").read_text() == ""
    records = [(r["logger"], r["message"], r["job_id"], r["task_id"], r["attempt"]) for r in logs.read(path)]
    assert records == [
        ("mything", "pin=***", "j", "t", 2),
        ("geoflow.worker", "own", "j", "t", 2),
        ("root", "root", "j", "t", 2),
    ]


def test_a_worker_without_a_log_leaves_logging_alone():
    before = (logging.root.handlers[:], logging.root.level, logs.ROOT.propagate)

    logs.configure_worker(None)

    assert (logging.root.handlers, logging.root.level, logs.ROOT.propagate) == before


# The file.


def test_the_file_is_opened_at_the_first_record_and_its_library_imported_then(tmp_path):
    code = """
import logging, sys
from geoflow import logs
logs.configure(sys.argv[1])
print("concurrent_log_handler" in sys.modules)
logging.getLogger("geoflow.x").info("first")
print("concurrent_log_handler" in sys.modules)
"""
    out, err = run(code, tmp_path / "x.log").communicate()

    assert (out.split(), err) == (["False", "True"], "")
    assert last(tmp_path / "x.log")["message"] == "first"


def test_S44_the_log_its_lock_and_its_older_files_are_their_owners_alone(tmp_path):
    path = tmp_path / "new" / "work.log"
    before = os.umask(0)
    try:
        handler = logs.LogFile(path, max_bytes=200, backups=3)
        assert handler.create() is None
        assert mode(path) == 0o600
        for number in range(10):
            handler.handle(logging.makeLogRecord({"msg": f"line {number}"}))
        handler.close()
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


def test_configuring_again_with_the_same_path_changes_nothing_but_the_level(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs.configure("a.log", "INFO")
    handlers = logs.ROOT.handlers[:]

    logs.configure(tmp_path / "a.log", "debug")
    LOG.debug("once")

    assert logs.ROOT.handlers == handlers
    assert [record["message"] for record in logs.read("a.log")] == ["once"]
    assert logs.ROOT.propagate is False


def test_configuring_with_another_path_replaces_the_first(tmp_path):
    logs.configure(tmp_path / "a.log")
    LOG.info("a")
    logs.configure(tmp_path / "b.log")
    LOG.info("b")
    logs.configure(None)
    LOG.info("nowhere")

    assert [record["message"] for record in logs.read(tmp_path / "a.log")] == ["a"]
    assert [record["message"] for record in logs.read(tmp_path / "b.log")] == ["b"]
    assert [handler for handler in logs.ROOT.handlers if isinstance(handler, logs.LogFile)] == []


def test_nothing_is_printed_unless_it_was_asked_for(tmp_path, capsys):
    logs.configure(None)
    LOG.error("quiet")
    assert capsys.readouterr() == ("", "")

    logs.configure(tmp_path / "a.log", "INFO", console=True)
    logs.configure(tmp_path / "a.log", "INFO", console=True)
    LOG.error("\x1b[31mpassword=%s", "hunter2")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.rstrip("\n").endswith("ERROR   password=***")

    logs.configure(tmp_path / "a.log", "INFO")
    LOG.error("quiet again")
    assert capsys.readouterr() == ("", "")


def test_a_log_that_cannot_be_made_is_told_once_and_stops_nothing(tmp_path, capsys):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    path = in_the_way / "work.log"

    with pytest.warns(RuntimeWarning, match=r"cannot write its log .*work\.log: Not a directory.*log_file=") as told:
        logs.configure(path)
    assert len(told) == 1
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logs.configure(path)
        LOG.error("nowhere")
    assert capsys.readouterr() == ("", "")

    in_the_way.unlink()
    logs.configure(path)
    LOG.error("here")
    assert last(path)["message"] == "here"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "work.log"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)

    with pytest.warns(RuntimeWarning, match="cannot write its log"):
        logs.configure(path)

    LOG.error("nowhere")
    assert list(logs.read(path)) == []


def test_a_log_that_breaks_later_stays_silent(tmp_path, capsys):
    folder = tmp_path / "gone"
    logs.configure(folder / "work.log")
    shutil.rmtree(folder)

    LOG.error("lost")

    assert capsys.readouterr() == ("", "")
    assert logging.raiseExceptions


WRITER = """
import logging, sys
from geoflow import logs
path, name, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
handler = logs.LogFile(path, max_bytes=100_000, backups=200)
logging.root.addHandler(handler)
logging.root.setLevel("INFO")
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


def test_S40_several_processes_write_one_rotating_file_and_nothing_is_lost_or_garbled(tmp_path):
    path = tmp_path / "work.log"
    writers = [run(WRITER, path, name, 1500) for name in "abcd"]
    start_all(writers)
    for writer in writers:
        _, err = writer.communicate()
        assert (writer.returncode, err) == (0, "")

    records = logs.read(path)

    assert numbers_by_writer(records) == {name: list(range(1500)) for name in "abcd"}
    assert records.broken == 0
    assert len(list(tmp_path.glob("work.log.*"))) >= 5
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


def test_S40_a_writer_that_is_killed_costs_the_others_nothing(tmp_path):
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

    records = logs.read(path)
    numbers = numbers_by_writer(records)

    assert numbers["a"] == numbers["b"] == list(range(800))
    assert numbers["victim"] == list(range(len(numbers["victim"])))
    assert records.broken <= 1


# Reading.


def test_read_gives_the_rotated_files_oldest_first(tmp_path):
    handler = logs.LogFile(tmp_path / "w[1].log", max_bytes=300, backups=20)  # a name that a glob would misread
    for number in range(40):
        handler.handle(logging.makeLogRecord({"msg": str(number)}))
    handler.close()

    assert len(list(tmp_path.iterdir())) > 6
    assert [record["message"] for record in logs.read(tmp_path / "w[1].log")] == [str(n) for n in range(40)]


def test_read_skips_what_is_no_record_and_counts_it(tmp_path):
    path = tmp_path / "work.log"
    path.write_bytes(
        b'{"time":"1","n":1}\n'
        b"not json\n"
        b"\n"
        b"[1]\n"
        b'\xff\xfe{"n":\n'
        b'{"time":"2","message":"killed whi{"time":"3","n":2}\n'
        b'{"time":"4","n":3}\n'
        b'{"time":"5","being writ'
    )
    records = logs.read(path)

    assert [record["n"] for record in records] == [1, 2, 3]
    assert records.broken == 4


def test_read_finds_a_file_in_the_midst_of_its_rotation(tmp_path):
    for name, number in [(".3", 1), (".2", 2), (".rotate.0815", 3), ("", 4)]:
        (tmp_path / f"work.log{name}").write_text(f'{{"n":{number}}}\n')
    os.mkfifo(tmp_path / "work.log.1")  # nor does it wait for a pipe
    (tmp_path / "work.log.old").write_text('{"n":0}\n')

    assert [record["n"] for record in logs.read(tmp_path / "work.log")] == [1, 2, 3, 4]


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
    assert failure["message"] == "dispatch failed: OSError: disk full"
    assert [failure[name] for name in ("operation", "job_id", "job_type", "stage", "task_id", "correlation_id")] == [
        "dispatch", "j", "tiles", 2, "t", "c",
    ]  # fmt: skip
    assert (failure["error_type"], failure["error_message"]) == ("OSError", "disk full")
    assert failure["duration_ms"] >= 0
    assert failure["traceback"].endswith("OSError: disk full")


def test_S41_a_success_is_not_logged(path):
    with logs.operation("dispatch"):
        pass

    assert list(logs.read(path)) == []


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


def test_S41_the_same_exception_of_a_later_operation_is_logged_again(path):
    error = ValueError("kept and raised twice")
    for name in ("first", "second"):
        with pytest.raises(ValueError, match="twice"), logs.operation(name):
            raise error

    assert [record["operation"] for record in logs.read(path)] == ["first", "second"]


def test_S41_an_exception_that_cannot_be_changed_passes_as_it_is_and_is_logged_once(path):
    @dataclass(frozen=True)
    class Frozen(Exception):
        __slots__ = ("why",)
        why: str

    with pytest.raises(Frozen), logs.operation("outer"), logs.operation("inner"), logs.bind(stage=1):
        raise Frozen("x")

    assert [record["operation"] for record in logs.read(path)] == ["inner"]


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


def test_S41_an_operation_may_keep_its_failure_to_itself(path):
    with logs.operation("tidy", reraise=False):
        raise OSError("x")

    assert last(path)["operation"] == "tidy"


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


def test_S41_an_operation_logs_where_it_is_told_to(path):
    with logs.operation("tidy", logger=logging.getLogger("geoflow.store"), reraise=False):
        raise OSError("x")

    assert last(path)["logger"] == "geoflow.store"
