"""What the calls of a chunk had returned when their process was killed, as its spool has it.

All of it is data: texts, numbers and JSON, each of which is looked at. What is not sound is left out, with the reason.
"""

from __future__ import annotations

import json
import logging
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from geoflow.core.batch import Batch, Completed
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, Outcome
from geoflow.core.retry import RetryPolicy
from geoflow.executors.spool import HEAD, HEADER, MAGIC, SEAL, SEALS, SUFFIX, TIMES, TOLD
from geoflow.support.jsonable import from_json, to_json
from geoflow.usercode.packing import Code

_LARGEST = 1 << 31  # bytes of a file that is looked at
_MOST_CALLS = 1 << 24
_CATEGORIES = frozenset(map(str, Category))


LEFT_OUT = "what calls had returned is left out, and they run again"
logger = logging.getLogger("geoflow.executors")


class NotSound(Exception):
    """Why a file is left out."""


class Returned(NamedTuple):
    """The calls of a chunk that had returned: their attempts, and the ids of the tasks that told more than a result.

    ``chunk`` is its number, ``epoch`` that of the lease under which it was sent.
    """

    job_id: str
    epoch: int
    chunk: int
    batch: Batch
    attempts: Sequence[Attempt]
    names: dict[int, str]

    def report(self, keys: frozenset[int], about: Chunk | None = None) -> Report:
        """The report on those of *keys*, of the chunk itself, or as one that had no others."""
        attempts = [attempt for attempt in self.attempts if attempt.key in keys]
        if about is None:
            own = [attempt.key for attempt in attempts]
            batch = self.batch._replace(keys=own, task_ids=to_json([self.names.get(key, "") for key in own]))
            code = Code(batch.task_type, None, None)
            about = Chunk(self.chunk, "tasks", self.job_id, "", 0, code, batch, RetryPolicy())
        plain = [attempt for attempt in attempts if attempt.key not in self.names]
        return Report(
            about,
            [attempt for attempt in attempts if attempt.key in self.names],
            completed=_completed(plain) if plain else None,
            seconds=sum((attempt.ended_at or 0.0) - (attempt.started_at or 0.0) for attempt in attempts),
        )


def _completed(attempts: Sequence[Attempt]) -> Completed:
    keys, numbers, _, started, ended, cpu, _, results, _, _, slots, pids, codes, *_ = zip(*attempts, strict=True)
    return Completed(numbers[0], slots[0], pids[0], codes[0], None, keys, started, ended, cpu, results)


def read(path: Path) -> Returned | None:
    """What the file at *path* has; None where no chunk has begun there. Raises `NotSound`, or an ``OSError``."""
    content = _content(path)
    if not any(content[: len(MAGIC)]):
        return None
    if len(content) < HEADER:
        raise NotSound("it is cut")
    magic, length, times, texts, check = HEAD.unpack_from(content)
    if magic != MAGIC:
        raise NotSound("it is of another version" if magic[:-1] == MAGIC[:-1] else "it is no spool")
    header = content[HEADER : HEADER + length]
    if not 0 < length <= times - HEADER <= texts <= len(content) or crc32(header) != check:
        raise NotSound("its header is damaged")
    try:
        return _Reading(path, from_json(header.decode()), content, times, texts).returned()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise NotSound(f"its header does not make sense ({type(exc).__name__}: {exc})") from exc


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotSound("it is no file")
        if status.st_uid != os.getuid():
            raise NotSound("another user owns it")
        if status.st_size > _LARGEST:
            raise NotSound("it is too large")
        return file.read()


class _Reading:
    """One file's content, with its header."""

    def __init__(self, path: Path, header: Any, content: bytes, times: int, texts: int) -> None:
        self._content, self._times, self._texts = content, times, texts
        if _is(header["folder"], str) != path.parent.name:
            raise NotSound("it is of another session")
        slot = path.name.split("-")[1:2]
        self._slot = int(slot[0]) if slot and slot[0].isdecimal() else None
        self._pid, self._code = _is(header["pid"], int), _is(header["code"], str)
        self._base, self._begun = _is(header["base"], float), _is(header["begun"], float)
        keys = header["keys"]
        if keys is None:
            first, count = _is(header["first"], int), _is(header["count"], int)
            keys = range(first, first + min(count, _MOST_CALLS))
        elif not all(type(key) is int for key in _is(keys, list)):
            raise NotSound("its keys are no numbers")
        attempt, retries, losses, first = (
            _is(header[name], int) for name in ("attempt", "retries", "losses", "first_key")
        )
        self._batch = Batch(_is(header["task_type"], str), attempt, retries, losses, first, keys, "[]", "[]")
        self._about = _is(header["job_id"], str), _is(header["epoch"], int), _is(header["chunk"], int)
        self._names: dict[int, str] = {}

    def returned(self) -> Returned:
        sealed, timed, whole = self._sealed()
        rows = TIMES.iter_unpack(self._content[self._times : self._times + TIMES.size * timed])
        known = {calls: (self._base + started, self._base + ended, cpu) for calls, started, ended, cpu in rows}
        attempts: list[Attempt] = []
        at, now = self._texts, self._base + self._begun
        for key in self._batch.keys:
            end = self._content.find(b"\0", at)
            if end <= at or (whole and len(attempts) >= sealed):
                break
            # All calls but the last before a seal took less than two milliseconds: they follow the one before.
            times = known.get(len(attempts) + 1, (now, now, 0.0))
            attempt = self._attempt(key, self._content[at:end], times, now)
            if attempt is None:  # it was killed while it wrote this
                if len(attempts) < sealed:
                    raise NotSound("what is sealed there does not make sense")
                break
            attempts.append(attempt)
            at, now = end + 1, attempt.ended_at or now
        if len(attempts) < sealed:
            raise NotSound("what is sealed there is not all there")
        return Returned(*self._about, self._batch, attempts, self._names)

    def _sealed(self) -> tuple[int, int, bool]:
        """How many calls and times are sealed, and whether nothing else counts: the other seal says more, and does not
        hold."""
        good, bad = [(-1, 0)], [-1]
        for place in SEALS:
            calls, timed, size, *sums = SEAL.unpack_from(self._content, place)
            times = self._content[self._times : self._times + TIMES.size * max(timed, 0)]
            texts = self._content[self._texts : self._texts + max(size, 0)]
            fits = calls >= timed >= 0 and size >= 0 and len(texts) == size and self._times + len(times) <= self._texts
            if fits and [crc32(times), crc32(texts)] == sums:
                good.append((calls, timed))
            else:
                bad.append(calls)
        calls, timed = max(good)
        if calls < 0 or (calls == 0 and max(bad) > 0):
            raise NotSound("it is damaged")
        return calls, timed, max(bad) >= calls

    def _attempt(self, key: int, text: bytes, times: tuple[float, float, float], before: float) -> Attempt | None:
        """One call; None where its text or its times cannot be a call's."""
        try:
            result, failure, output, told = self._outcome(key, text.decode())
            started, ended, cpu = map(float, told or times)
        except (ValueError, TypeError, RecursionError):
            return None
        if not (math.isfinite(cpu) and 0 < started <= ended < math.inf and started >= before):
            return None
        outcome = Outcome.COMPLETED if failure is None else Outcome.FAILED
        return Attempt(
            *(key, self._batch.attempt, outcome, started, ended, max(cpu, 0.0)),
            result=result,
            failure=failure,
            output=output,
            slot=self._slot,
            pid=self._pid,
            code=self._code,
        )

    def _outcome(self, key: int, text: str) -> tuple[str | None, Failure | None, str | None, list[float] | None]:
        if not text.startswith(TOLD):
            return _result(text), None, None, None
        name, started, ended, cpu, result, failure, output = json.loads(text[1:])
        self._names[key] = _is(name, str)
        times = [_is(moment, float) for moment in (started, ended, cpu)]
        if output is not None:
            _is(output, str)
        if failure is not None:
            return None, _failure(failure), output, times
        return _result(result), None, output, times


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def _result(text: Any) -> str:
    found: str = _is(text, str)
    value = from_json(found)
    if not isinstance(value, dict) or value.get("success") is not True:
        raise ValueError("no result")
    return found


def _failure(row: Any) -> Failure:
    error, error_type, category, retryable, traceback = _is(row, list)
    if not isinstance(traceback, str | None) or category not in _CATEGORIES:
        raise TypeError("no failure")
    return Failure(_is(error, str), _is(error_type, str), category, _is(retryable, bool), traceback)


def kept_in(folder: Path, begins: str = "") -> dict[Path, Returned]:
    """What is kept in *folder*, by the file: of all processes, or of that whose files' names begin so."""
    found = {}
    for path in folder.glob(f"{begins}*{SUFFIX}"):
        try:
            returned = read(path)
        except (NotSound, OSError) as exc:
            logger.warning("%s: %s: %s", LEFT_OUT, path.name, exc)
            continue
        if returned is not None:
            found[path] = returned
    return found
