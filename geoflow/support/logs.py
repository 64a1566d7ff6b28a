"""JSON-lines logging: one object a line, in a file that all of a session's processes write and that rotates.

Nothing here may stop the engine: a log that cannot be written is told once, as a warning, and then goes nowhere.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import glob
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from geoflow.errors import ContractViolationError, UnstorableValue
from geoflow.support import logfile
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.logfile import WRITTEN, LogFile
from geoflow.support.masking import DEFAULT_SECRETS, MASKED, looks_secret, mask, mask_text, safe
from geoflow.support.text import UNSEEN, cut, exact

_LONGEST_TEXT = 16_000

# The fields of a line that are columns wherever lines are rows, and what each of them holds.
FIELDS = {
    "time": "time",
    **dict.fromkeys(("level", "logger", "message", "job_id", "job_type"), "text"),
    "stage": "integer",
    **dict.fromkeys(("task_id", "task_type"), "text"),
    "attempt": "integer",
    **dict.fromkeys(("correlation_id", "operation", "error_type", "error_message", "error_category"), "text"),
    **{"retryable": "truth", "duration_ms": "number", "traceback": "text"},
}

FilePath = str | os.PathLike[str]


class _Own(logging.Logger):
    """A logger of geoflow's: nothing that user code does to logging as a whole ends the log.

    `logging.disable`, and `logging.config` with its ``disable_existing_loggers``, hold for the user's own handlers.
    """

    def isEnabledFor(self, level: int) -> bool:
        return level >= self.getEffectiveLevel()

    def handle(self, record: logging.LogRecord) -> None:
        if (file := _file_here()) is not None:
            file.handle(record)
        if record.levelno > self.manager.disable:
            super().handle(record)

    def later(self, level: int, message: Callable[[], str], fields: Mapping[str, object]) -> None:
        """Log *message* with *fields*; where nobody but the file hears it, both are put into words by who writes it.

        So neither may change meanwhile: a job of which every task fails says as much, in the one thread that drives.
        """
        if not self.isEnabledFor(level):
            return
        file, handlers = _file_here(), (*ROOT.handlers, *self.handlers)
        others = [handler for handler in handlers if handler is not _NOWHERE and not isinstance(handler, LogFile)]
        if file is None or others or ROOT.propagate or self is ROOT:
            self.log(level, "%s", message(), extra=fields)
            return
        told, created, name = {**_of_process, **_bound.get({}), **fields}, time.time(), logging.getLevelName(level)
        lines = file.lines
        file.say(lambda: lines.line(created, name, self.name, message(), told))


def logger_of(name: str) -> _Own:
    """The logger *name*, which begins with ``geoflow``, as one whose lines reach the log whatever user code does."""
    logger = logging.getLogger(name)
    if type(logger) is logging.Logger:
        logger.__class__ = _Own
    return cast(_Own, logger)


ROOT = logger_of("geoflow")
# Without a handler of its own, Python would print a library's warnings on the screen.
_NOWHERE = logging.NullHandler()
ROOT.addHandler(_NOWHERE)


# What every record made now carries.
_bound: ContextVar[Mapping[str, object]] = ContextVar("geoflow_log_fields")
_of_process: Mapping[str, object] = {}
# Whose log was opened last; and that of the session which this thread, or asyncio task, drives jobs for.
_file: LogFile[JsonLines] | None = None
_directed: ContextVar[LogFile[JsonLines] | None] = ContextVar("geoflow_log_file")
_of_task: LogFile[JsonLines] | None = None  # to which goes what any logger says, for as long as a task runs
_level_before = logging.NOTSET


def _file_here() -> LogFile[JsonLines] | None:
    return _directed.get(_file)


@contextmanager
def into(file: LogFile[JsonLines] | None) -> Iterator[None]:
    """What geoflow says within, in this thread or asyncio task, goes to this *file*; where it is None, nowhere."""
    token = _directed.set(file)
    try:
        yield
    finally:
        _directed.reset(token)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add *fields* to every record made within, by any logger, in this thread or asyncio task."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def set_fields(fields: Mapping[str, object] | None = None) -> None:
    """From now on add *fields*, and no others, to every record of this process, whatever thread it comes from.

    Until None takes them away, what any logger says goes to the file: it is a handler's. What `bind` says goes before.
    """
    global _of_process, _of_task, _level_before  # noqa: PLW0603 - a process has one task at a time: this is that task
    _of_process = fields or {}
    if (_of_task is not None) == bool(fields):
        return
    if fields:
        _of_task = _file_here()
        if _of_task is not None:
            # For no longer than a task: with a handler, the user's root logger ignores `logging.basicConfig`.
            logging.root.addHandler(_of_task)
            _level_before = logging.root.level
            logging.root.setLevel(min(_level_before, ROOT.level))
    elif _of_task is not None:
        logging.root.removeHandler(_of_task)
        logging.root.setLevel(_level_before)
        _of_task = None


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", WRITTEN}
# Looked for by their exact value, so never masked, whatever a task is called.
_IDENTITY = frozenset(("job_id", "job_type", "stage", "task_id", "task_type", "attempt", "correlation_id"))


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message, then what is bound and what is `extra`.

    Secrets are masked in all of it. Values become JSON as results do, and what has no such form becomes its text.
    """

    def __init__(self, secrets: Sequence[str] = DEFAULT_SECRETS) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {}
        traceback = None
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields = {"error_type": type(error).__name__, "error_message": exact(error)}
            traceback = self.formatException(record.exc_info)
        extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        fields = {**fields, **_of_process, **_bound.get({}), **extra}
        return self.line(record.created, record.levelname, record.name, _message(record), fields, traceback)

    def line(
        self,
        created: float,
        level: str,
        logger: str,
        message: str,
        fields: Mapping[str, object],
        traceback: str | None = None,
    ) -> str:
        """The line that says *message*, with *fields*."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "logger": logger,
            "message": self._text(message),
        }
        if traceback is not None:
            line["traceback"] = self._text(traceback)
        for name, value in fields.items():
            if value is not None:
                line[f"{name}_" if name in line else name] = self._value(name, value)
        text = orjson.dumps(line).decode()
        return text if text.isascii() else UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    def _value(self, name: str, value: object) -> object:
        kind, is_identity = type(value), name in _IDENTITY
        # What most values are comes first: a job of which every task fails has as many lines.
        if kind is bool or (kind is int and is_identity and abs(cast(int, value)) < 2**63):
            return value
        if not (kind is str and cast(str, value).isascii()):
            try:
                value = from_json(to_json(value))
            except UnstorableValue:
                value = exact(value)
        if not is_identity:
            if type(value) is str:
                value = MASKED if looks_secret(name, self._secrets) else mask_text(value, self._secrets)
            else:
                value = mask({name: value}, self._secrets)[name]
        return cut(value, _LONGEST_TEXT) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        # Masked before it is cut: what names a secret may be in the part that is left out.
        return cut(safe(text, self._secrets), _LONGEST_TEXT)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not match the message, or that raise when shown
        return f"{exact(record.msg)} {exact(record.args)}"


def configure(
    path: FilePath | None, level: str = "INFO", secrets: Sequence[str] = DEFAULT_SECRETS
) -> LogFile[JsonLines] | None:
    """Send what geoflow logs to the rotating file at *path* and nowhere else; without a path, nowhere at all.

    The file is made readable by its owner alone. If that cannot be, one warning tells why. What this returns is for
    `into`: of several sessions in a process, each has a log of its own.
    """
    if path is not None:
        try:
            path = Path(path)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            if not path.is_file():  # whose mode must stay as it is: /dev/null, for one
                raise OSError(errno.EINVAL, "not a regular file")
            path.chmod(0o600)
        except OSError as error:
            warnings.warn(
                f"geoflow cannot write its log {path}: {error.strerror or error}. This session goes on without a log; "
                "log_file= or GEOFLOW_LOG_FILE names another place.",
                RuntimeWarning,
                stacklevel=2,
            )
            path = None
    configure_worker(path, level, secrets, behind=True)
    return _file


def configure_worker(
    path: FilePath | None, level: str = "INFO", secrets: Sequence[str] = DEFAULT_SECRETS, *, behind: bool = False
) -> None:
    """The same for a worker process, whose session has made the file and told of what is wrong with it.

    It may be ended at any moment, by its task or for it: what is said there is written at once, and not *behind*.
    """
    global _file  # noqa: PLW0603 - as with all of logging, it is the process's
    set_fields(None)
    ROOT.setLevel(level.upper())
    ROOT.propagate = False
    if _file is not None:
        ROOT.removeHandler(_file)
        _file.flush()
        _file = None
    if path is not None:
        _file = LogFile(path, JsonLines(secrets), behind=behind)
        ROOT.addHandler(_file)


def flush() -> None:
    """Have all that was said here until now in its file."""
    for file in logfile.files():
        file.flush()


@atexit.register
def _at_exit() -> None:
    for file in logfile.files():
        file.at_once()


_LOGGED = "_geoflow_logged"


@contextmanager
def operation(
    name: str, *, on_error: Callable[[Exception], object] | None = None, reraise: bool = True, **fields: object
) -> Iterator[None]:
    """Run the block as the operation *name*; if it raises, log that once, with its *fields* and its duration.

    Every record made within carries the name and the fields. Of operations within each other the innermost logs an
    exception. *on_error* is then called with it; if it raises itself, that is logged and goes no further. With
    ``reraise=False`` the exception ends here, unless it is a contract violation, which always passes.
    """
    began = time.monotonic()
    with bind(operation=name, **fields):
        try:
            yield
        except Exception as error:
            if not error.__dict__.get(_LOGGED):
                took = round((time.monotonic() - began) * 1000, 3)
                ROOT.error("%s failed: %s", name, exact(error), exc_info=error, extra={"duration_ms": took})
            error.__dict__[_LOGGED] = True
            if on_error is not None:
                try:
                    on_error(error)
                except Exception:  # it is the caller's; the first failure is the one that counts
                    ROOT.exception("%s failed, and so did what was to be done then", name)
            # By name: a job type that does not import geoflow brings a class of its own (S25).
            if reraise or ContractViolationError.__name__ in (base.__name__ for base in type(error).__mro__):
                raise


def read(path: FilePath, having: str = "") -> Iterator[dict[str, Any]]:
    """Every record of the log at *path* and of the files that it was rotated to, oldest first.

    With *having* only of lines in which that stands, as it is in JSON. Lines that are not JSON objects are skipped,
    such as the last one of a process that was killed. A log that does not exist has no records. What is written
    meanwhile may be seen or not; what was there at the beginning is seen once, also where the log rotates meanwhile.
    """
    flush()
    wanted = having.encode()
    with contextlib.ExitStack() as opened:
        for file in _opened(os.fspath(path), opened):
            for line in file:
                if wanted in line and (record := _record(line)) is not None:
                    yield record


def read_on(path: FilePath, having: str = "") -> Iterator[list[dict[str, Any]]]:
    """What `read` reads, and then, as often as one asks, what was written since: each record once.

    A line of which the end is yet to be written waits for that.
    """
    wanted, done = having.encode(), dict[tuple[int, int], int]()
    while True:
        flush()
        records, reached = list[dict[str, Any]](), dict[tuple[int, int], int]()
        with contextlib.ExitStack() as opened:
            for file in _opened(os.fspath(path), opened):
                status = os.fstat(file.fileno())
                file_id = status.st_dev, status.st_ino
                at = done.get(file_id, 0)
                file.seek(at)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    at += len(line)
                    if wanted in line and (record := _record(line)) is not None:
                        records.append(record)
                reached[file_id] = at
        done = reached
        yield records


def _record(line: bytes) -> dict[str, Any] | None:
    with suppress(orjson.JSONDecodeError):
        record = orjson.loads(line)
        return record if isinstance(record, dict) else None
    return None


def _opened(path: str, stack: contextlib.ExitStack) -> list[BinaryIO]:
    """The log's files, the oldest first.

    The youngest is opened first: it is renamed to what is looked for next, so none is missed, though one may be found
    twice. While the log rotates, the youngest has a name that says so, and keeps it where the process is killed then.
    """
    found: dict[tuple[int, int], BinaryIO] = {}
    rotating = glob.iglob(f"{glob.escape(path)}.rotate.*")
    for name in chain((path,), rotating, (f"{path}.{number}" for number in range(1, logfile.BACKUPS + 1))):
        with suppress(OSError):
            file = stack.enter_context(open(name, "rb"))  # noqa: SIM115 - closed by the stack
            status = os.fstat(file.fileno())
            file_id = status.st_dev, status.st_ino
            found.pop(file_id, None)  # what was found between is younger: the log has rotated twice meanwhile
            found[file_id] = file
    return [*reversed(found.values())]
