"""What follows a job: another one, submitted once when it has completed, also where the process is killed in between.

What the other one is given is noted in the store before it is submitted, and by whoever asks again read from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from warnings import warn

from geoflow.core.models import JobStatus, Receipt
from geoflow.core.payloads import is_fallback
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.errors import GeoflowWarning, JobFailed, ParameterError
from geoflow.jobtypes.contract import DefinesJob
from geoflow.support import logs
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.text import exact, shorten
from geoflow.usercode.fingerprint import fingerprint
from geoflow.usercode.origin import stacklevel

logger = logs.logger_of("geoflow.following")
_Job = TypeVar("_Job")
Map = Callable[[dict[str, Any]], Mapping[str, Any]]


class FollowUp(Generic[_Job]):
    """What follows a job once that has completed, of itself for as long as its session is open."""

    def __init__(
        self,
        runtime: Runtime,
        job_id: str,
        job_type: str | type | DefinesJob,
        make: Map | None,
        given: dict[str, Any],
        name: str,
        handle: Callable[[Receipt], _Job],
    ) -> None:
        self._runtime, self._job_id, self._job_type = runtime, job_id, job_type
        self._make, self._given, self._name, self._handle = make, given, name, handle
        self._type_name = runtime.registered(job_type).name  # one that cannot be run is refused before it is waited for
        self._lock = threading.Lock()
        self._receipt: Receipt | None = None
        self._error: BaseException | None = None
        runtime.follow(job_id, self)

    @property
    def job(self) -> _Job | None:
        """The job that was submitted; None until then."""
        return None if self._receipt is None else self._handle(self._receipt)

    def wait(self, timeout: float | None = None) -> _Job:
        """Wait for the first job's end, and submit the other one, if that was not done: the other job.

        Raises what the map raises, ``JobFailed`` where the first job has no result, and ``TimeoutError``.
        """
        self._runtime.wait(self._job_id, timeout)
        return self._handle(self.submit())

    def submit(self) -> Receipt:
        """Submit the other job, unless that was done; ``JobFailed`` where the first one has no result yet."""
        with self._lock:
            if self._receipt is None:
                row = self._runtime.row(self._job_id)
                result = from_json(row.result or "null")
                if row.status != JobStatus.COMPLETED or is_fallback(result):
                    is_done = row.status == JobStatus.COMPLETED
                    why = "has no result: its finalize failed" if is_done else f"is {row.status}"
                    told = f"Job {row.job_id[:8]} ({row.job_type}) {why}. {self._type_name} was not submitted after it."
                    raise JobFailed(told, job_id=row.job_id, status=str(row.status))
                self._receipt = self._runtime.submit(self._job_type, self._noted(row, result))
                self._error = None
            return self._receipt

    def in_background(self) -> None:
        """`submit`, where nobody hears what it raises: it is logged, and told again by `wait`."""
        try:
            self.submit()
        except Exception as exc:
            self._error = exc
            about = {"job_id": self._job_id, "error_type": type(exc).__name__, "error_message": exact(exc)}
            with logs.into(self._runtime.log), contextlib.suppress(Exception):
                logger.log(logging.ERROR, "%s was not submitted after it", self._type_name, extra=about)

    def _noted(self, row: JobRow, result: dict[str, Any]) -> dict[str, Any]:
        """What the other job is given: what was noted after this end of the job, or what is made and noted now."""
        store, parts = self._runtime.store, (row.job_id, repr(row.ended_at), row.result, self._type_name, self._name)
        name = f"then {hashlib.sha256(to_json(parts).encode()).hexdigest()}"
        version = fingerprint(self._make) if self._make is not None else ""
        text = store.noted(name)
        if text is None:
            made: Any = {} if self._make is None else self._make(result)
            if not isinstance(made, Mapping):
                raise ParameterError(
                    f"map returned {shorten(repr(made), 60)}, and not a dict of parameters: {self._type_name} was not "
                    f"submitted after job {row.job_id[:8]}."
                )
            given = to_json({"given": {**self._given, **made}, "by": [version, self._given]})
            text = store.keep_note(name, given, self._runtime.clock.now())
        noted = from_json(text)
        if noted["by"] != from_json(to_json([version, self._given])):
            warn(
                f"Job {row.job_id[:8]} was followed by {self._type_name} before, with another map or other parameters "
                "than these: what was submitted then is what you get. name= makes another follow-up.",
                GeoflowWarning,
                stacklevel=stacklevel(),
            )
        parameters: dict[str, Any] = noted["given"]
        return parameters

    def __repr__(self) -> str:
        said = f"follows job {self._job_id[:8]}, when that has completed"
        if self._receipt is not None:
            said = f"job {self._receipt.job_id[:8]}, after job {self._job_id[:8]}"
        elif self._error is not None:
            said = f"not submitted: {type(self._error).__name__}: {shorten(exact(self._error), 100)}"
        return f"<follow-up {self._type_name}: {said}>"
