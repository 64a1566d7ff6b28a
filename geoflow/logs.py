"""JSON-lines logging: one object a line, in a file that all of a session's processes write and that rotates.

Nothing here may stop the engine: a log that cannot be written is told once, as a warning, and then goes nowhere.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, BinaryIO

import orjson

from geoflow.errors import ContractViolationError
from geoflow.text import DEFAULT_SECRETS, cut, exact, exact_str, mask, mask_text, plain

MAX_BYTES = 10_000_000
BACKUPS = 5
_LONGEST_TEXT = 16_000

ROOT = logging.getLogger("geoflow")
# Without a handler of its own, Python would print a library's warnings on the screen.
ROOT.addHandler(logging.NullHandler())


# What every record made now carries.

_NOTHING: Mapping[str, object] = MappingProxyType({})
_bound: ContextVar[Mapping[str, object]] = ContextVar("geoflow_log_fields", default=_NOTHING)
_of_process: Mapping[str, object] = _NOTHING


class bind:
    """Add *fields* to every record made within, by any logger, in this thread or asyncio task."""

    # A class, and so is `operation`: a generator's context manager assigns to the exception that passes through it,
    # which turns a user's frozen exception into another one.

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = _bound.set({**_bound.get(), **self._fields})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


def set_fields(fields: Mapping[str, object] | None = None) -> None:
    """From now on add *fields*, and no others, to every record of this process, whatever thread it comes from.

    For worker processes, which run one task at a time: cheaper than `bind`, and the threads that a handler starts
    are known by it too. What `bind` says goes before. None takes the fields away.
    """
    global _of_process  # noqa: PLW0603 - a worker has one task at a time, and this is that task
    _of_process = _NOTHING if fields is None else fields


# One record as one line.

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
# Looked for by their exact value, so never masked, whatever a task is called.
_IDENTITY = frozenset(("job_id", "job_type", "stage", "task_id", "task_type", "attempt", "correlation_id"))
_OURS = frozenset(("time", "level", "logger", "message", "traceback"))
# What JSON itself does not escape, but a terminal that shows the file would obey.
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_JSON = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message, then what is bound and what is `extra`.

    Secrets are masked in all of it. A record that does not fit (arguments that do not match its message, a value
    without a JSON form, text that is not Unicode) is written as well as it can be, never dropped.
    """

    def __init__(self, secrets: Iterable[str] = DEFAULT_SECRETS) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self._text(_message(record)),
        }
        for name, value in self._fields(record).items():
            line[name + "_" if name in _OURS else name] = value
        text = self._traceback(record)
        if text:
            line["traceback"] = text
        try:
            written = orjson.dumps(line, self._show, _JSON).decode()
        except (TypeError, ValueError, RecursionError):
            written = orjson.dumps({exact(name): self._fitting(value) for name, value in line.items()}).decode()
        return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", written)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {**_of_process, **_bound.get()}
        fields.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields.setdefault("error_type", type(error).__name__)
            fields.setdefault("error_message", exact_str(error))
        return {name: self._masked(name, value) for name, value in fields.items() if value is not None}

    def _masked(self, name: str, value: object) -> object:
        try:
            if name not in _IDENTITY:
                value = mask({name: value}, self._secrets)[name]
        except Exception as error:  # a mapping whose items() raises, for one
            return f"<{type(value).__name__} that raised {type(error).__name__}>"
        return cut(value, _LONGEST_TEXT) if isinstance(value, str) else value

    def _traceback(self, record: logging.LogRecord) -> str:
        text = record.exc_text or ""
        if record.exc_info and record.exc_info[1] is not None:
            try:
                text = "".join(traceback.format_exception(record.exc_info[1]))
            except Exception as error:  # an exception's own attributes may raise, or refer to each other for ever
                text = f"(the traceback could not be shown: {type(error).__name__})"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        return self._text(text.strip())

    def _text(self, value: object) -> str:
        # Masked before it is cut: what names a secret may be in the part that is left out.
        return exact(mask_text(exact_str(value), self._secrets), _LONGEST_TEXT)

    def _show(self, value: object) -> object:
        if getattr(value, "ndim", None) == 0:  # a numpy scalar
            with suppress(Exception):
                return value.item()  # type: ignore[attr-defined]
        return self._text(value)

    def _fitting(self, value: object) -> object:
        try:
            return orjson.Fragment(orjson.dumps(value, self._show, _JSON))
        except (TypeError, ValueError, RecursionError):
            return self._text(value)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not match the message, or that raise when shown
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join(exact_str(part) for part in (record.msg, *arguments))


class _OneLine(logging.Formatter):
    """A record for a person at a terminal: safe to print, and no more than is needed."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = mask_text(_message(record), self._secrets)
        return plain(f"{at} {record.levelname:7} {cut(text, _LONGEST_TEXT)}")


# Where the lines go.


class LogFile(logging.Handler):
    """The rotating file, opened at the first record, so that a process which logs nothing pays nothing.

    All processes that write one file must give it the same *max_bytes* and *backups*.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        secrets: Iterable[str] = DEFAULT_SECRETS,
        *,
        max_bytes: int = MAX_BYTES,
        backups: int = BACKUPS,
    ) -> None:
        super().__init__()
        self.path = os.path.abspath(path)
        self.setFormatter(JsonLines(secrets))
        self._max_bytes = max_bytes
        self._backups = backups
        self._file: logging.Handler | None = None
        self._usable = True

    def create(self) -> OSError | None:
        """Make the file, readable by its owner alone, or say why that cannot be; then records go nowhere."""
        try:
            folder = os.path.dirname(self.path)
            if not os.path.exists(folder):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            _create(self.path)
        except OSError as error:
            self._usable = False
            return error
        self._usable = True
        return None

    def emit(self, record: logging.LogRecord) -> None:
        if not self._usable:
            return
        try:
            if self._file is None:
                self._file = self._open()
            self._file.emit(record)
        except Exception:
            self.handleError(record)

    def _open(self) -> logging.Handler:
        from concurrent_log_handler import ConcurrentRotatingFileHandler

        file = ConcurrentRotatingFileHandler(
            self.path,
            maxBytes=self._max_bytes,
            backupCount=self._backups,
            encoding="utf-8",
            chmod=stat.S_IRUSR | stat.S_IWUSR,
        )
        # Instead of a subclass, which could not be defined before the late import.
        file.format = self.format  # type: ignore[method-assign]
        file.handleError = self.handleError  # type: ignore[method-assign]
        return file

    def handleError(self, record: logging.LogRecord) -> None:
        """Stay silent: a disk that is full must not print a traceback for each record."""

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()
        super().close()


def _create(path: str) -> None:
    # Not blocking: the path may be a pipe that nobody reads.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        with suppress(OSError):  # it may be somebody else's, and writable all the same
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


class _Screen(logging.StreamHandler[Any]):
    """The handler of ``console=True``, told apart from those that users add."""


def configure(
    path: str | os.PathLike[str] | None,
    level: str = "INFO",
    *,
    console: bool = False,
    secrets: Iterable[str] = DEFAULT_SECRETS,
) -> None:
    """Send what geoflow logs to the rotating file at *path*, or nowhere; and with *console* to stderr as well.

    Call it as often as you like: the same path changes nothing but the level and the console, another path replaces
    the first. Nothing is printed unless *console* says so. If the file cannot be made, one warning tells why.
    """
    secrets = tuple(secrets)
    ROOT.setLevel(level.upper())
    ROOT.propagate = False
    screen = next((handler for handler in ROOT.handlers if isinstance(handler, _Screen)), None)
    if screen is not None:
        ROOT.removeHandler(screen)
    if console:
        screen = _Screen()
        screen.setFormatter(_OneLine(secrets))
        ROOT.addHandler(screen)
    file, new = _attach(ROOT, path, secrets)
    if file is None:
        return
    error = file.create()
    if error is not None and new:
        warnings.warn(
            f"geoflow cannot write its log {file.path}: {error.strerror or error}. This session goes on without a log; "
            "log_file= or GEOFLOW_LOG_FILE names another place.",
            RuntimeWarning,
            stacklevel=2,
        )


def configure_worker(
    path: str | os.PathLike[str] | None, level: str = "INFO", secrets: Iterable[str] = DEFAULT_SECRETS
) -> None:
    """In a worker process: send everything that is logged, handlers' own loggers included, to the file at *path*.

    The file is opened at the first record. Without a path nothing is changed.
    """
    if path is None:
        return
    root = logging.getLogger()
    root.setLevel(level.upper())
    ROOT.setLevel(logging.NOTSET)
    ROOT.propagate = True
    _attach(ROOT, None, ())
    _attach(root, path, secrets)


def _attach(
    logger: logging.Logger, path: str | os.PathLike[str] | None, secrets: Iterable[str]
) -> tuple[LogFile | None, bool]:
    """The one `LogFile` of *logger*, for *path*, and whether it is a new one."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, LogFile)]:
        if path is not None and handler.path == os.path.abspath(path):
            handler.setFormatter(JsonLines(secrets))
            return handler, False
        logger.removeHandler(handler)
        handler.close()
    if path is None:
        return None, False
    file = LogFile(path, secrets)
    logger.addHandler(file)
    return file, True


# One failure, one line.


_MARK = "_geoflow_logged_within"
_operation: ContextVar[operation | None] = ContextVar("geoflow_operation", default=None)


class operation:
    """Run the block as the operation *name*; if it raises, log that once, with its context and its duration.

    Every record made within carries the name and the context. Of operations within each other the innermost logs
    an exception, and the others let it pass. *on_error* is then called with the exception; if it raises itself,
    that is logged and goes no further. With ``reraise=False`` the exception ends here, unless it is a contract
    violation, which always passes. Only `Exception` counts as a failure: an interrupt or an exit passes, unlogged.
    """

    def __init__(
        self,
        name: str,
        *,
        logger: logging.Logger | None = None,
        job_id: str | None = None,
        job_type: str | None = None,
        stage: int | None = None,
        task_id: str | None = None,
        task_type: str | None = None,
        attempt: int | None = None,
        correlation_id: str | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        reraise: bool = True,
    ) -> None:
        fields = {
            "operation": name,
            "job_id": job_id,
            "job_type": job_type,
            "stage": stage,
            "task_id": task_id,
            "task_type": task_type,
            "attempt": attempt,
            "correlation_id": correlation_id,
        }
        self._name = name
        self._logger = logger or ROOT
        self._bind = bind(**{field: value for field, value in fields.items() if value is not None})
        self._on_error = on_error
        self._reraise = reraise

    def __enter__(self) -> None:
        self._outer = _operation.get()
        self._token = _operation.set(self)
        self._bind.__enter__()
        self._began = time.monotonic()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        try:
            return isinstance(error, Exception) and self._failed(error)
        finally:
            self._bind.__exit__()
            _operation.reset(self._token)

    def _failed(self, error: Exception) -> bool:
        """Tell of *error*, and whether it ends here."""
        # What was logged is noted on the exception, for the operation around this one: if that one kept the
        # exception instead, it would keep all that its frames hold.
        if error.__dict__.pop(_MARK, None) is not self:
            self._tell("failed", error)
        if self._outer is not None:
            error.__dict__[_MARK] = self._outer
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception as failure:
                self._tell("failed, and so did what was to be done then", failure)
        return not self._reraise and not _is_contract_violation(error)

    def _tell(self, what: str, error: Exception) -> None:
        kind, message = type(error).__name__, exact_str(error)
        took = round((time.monotonic() - self._began) * 1000, 3)
        extra = {"error_type": kind, "error_message": message, "duration_ms": took}
        self._logger.error("%s %s: %s: %s", self._name, what, kind, message, exc_info=error, extra=extra)


def _is_contract_violation(error: BaseException) -> bool:
    # By name as well: a job type that does not import geoflow brings a class of its own (S25).
    return any(cls.__name__ == ContractViolationError.__name__ for cls in type(error).__mro__)


# The lines again.


class Records(Iterator[dict[str, Any]]):
    """The records of a log, oldest first; ``broken`` counts the lines so far that were not records."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.broken = 0
        self._records = self._read(os.path.abspath(path))

    def __next__(self) -> dict[str, Any]:
        return next(self._records)

    def _read(self, path: str) -> Iterator[dict[str, Any]]:
        files = _open_all(path)
        try:
            for file in files:
                for line in file:
                    record = self._parse(line)
                    if record is not None:
                        yield record
        finally:
            for file in files:
                file.close()

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        record = _object(line)
        if record is not None or not line.strip():
            return record
        if line.endswith(b"\n"):  # else it is being written just now
            self.broken += 1
        # A process that was killed while it wrote leaves half a line, and the next one's begins right behind it.
        start = line.rfind(b'{"time":')
        return _object(line[start:]) if start > 0 else None


def read(path: str | os.PathLike[str]) -> Records:
    """Every record of the log at *path* and of the files that it was rotated to, oldest first.

    Lines that are not JSON objects are skipped, and counted in the iterator's ``broken``. A log that does not exist
    has no records. What processes write meanwhile may be seen or not.
    """
    return Records(path)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _open_all(path: str) -> list[BinaryIO]:
    """The log's files, oldest first.

    Opened newest first, because a file that is rotated meanwhile only moves to a later name: it may be met twice,
    which is seen, but not be missed.
    """
    folder, name = os.path.split(path)
    opened: dict[tuple[int, int], BinaryIO] = {}
    _open_once(path, opened)
    try:
        endings = [entry[len(name) :] for entry in os.listdir(folder) if entry.startswith(name + ".")]
    except OSError:
        endings = []
    # In the midst of a rotation the newest file is called this, and there is a gap in the numbers.
    for ending in sorted(ending for ending in endings if ending.startswith(".rotate.")):
        _open_once(path + ending, opened)
    last = max((int(ending[1:]) for ending in endings if re.fullmatch(r"\.[0-9]{1,6}", ending)), default=0)
    for number in range(1, last + 3):
        _open_once(f"{path}.{number}", opened)
    return list(opened.values())[::-1]


def _open_once(path: str, opened: dict[tuple[int, int], BinaryIO]) -> None:
    try:
        # Not blocking: whoever can write beside the store could have put a pipe there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in opened:
        opened[found.st_dev, found.st_ino] = os.fdopen(descriptor, "rb")
    else:
        os.close(descriptor)
