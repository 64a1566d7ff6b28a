"""What a session does with its store as a whole: it lists what is there, copies it, and removes what is not needed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoflow.engine.runtime import Runtime
from geoflow.errors import StoreError
from geoflow.job_handle import JobHandle
from geoflow.jobtypes.contract import normalise
from geoflow.notebook import progress
from geoflow.stores.store import Store
from geoflow.support import logs
from geoflow.support.moments import Moment, moment
from geoflow.support.settings import Settings
from geoflow.views.chosen import Choice, states_of
from geoflow.views.snapshot import listing

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.tools.keeping.config import Config
    from geoflow.tools.keeping.prune import Pruned
    from geoflow.tools.keeping.size import Sizes
    from geoflow.tools.keeping.types import Types


class Housekeeping:
    """The part of a `geoflow.session.Session` that keeps its store in order."""

    runtime: Runtime

    @property
    def store(self) -> Store:
        """Where its jobs are kept, opened when it is first asked for."""
        return self.runtime.store

    @property
    def settings(self) -> Settings:
        """What it was opened with, and what stands for the rest."""
        return self.runtime.settings

    def watch(self, limit: int = 20) -> None:
        """Show the last *limit* jobs of the store live, and those that come; a row opens its job below the list.

        A row has the parameters that are not the same in all jobs of its type, how far it is, for how long somebody
        drove it, which leaves out the night before a resume, and how long ago it was submitted. It goes on until the
        session is closed, and what it shows then stays in a saved notebook. Where there is no notebook, they are
        printed as they are now.
        """
        progress.watch_jobs(self.runtime, limit)

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        job_type: str | None = None,
        since: Moment | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """The jobs of the store, one row each, oldest first: all of them, or those of which all holds that is said.

        They are in that *state*, or one of these (see `prune`; ``"processing"`` too), of that *job_type*, submitted
        *since* then (``"2026-01-31"``, a datetime, or how long ago, as ``"2d"`` or a timedelta), and the last *limit*
        of these.
        """
        from geoflow.views import frames

        frame, choice = frames.jobs(self.store), self.choice(state, job_type, since)
        if choice == Choice():
            return frame if limit is None else frame.tail(limit)
        chosen = {view.job_id for view in listing(self.store, self.runtime.clock.now(), limit, choice.means)}
        return frame[frame["job_id"].isin(chosen)].reset_index(drop=True)

    def choice(self, state: str | Sequence[str] | None, job_type: str | None, since: Moment | None = None) -> Choice:
        """Which jobs are meant by what is said of them, see `jobs`."""
        at = None if since is None else moment(since, self.runtime.clock.now(), "since")
        return Choice(states_of(state), job_type and normalise(job_type), at)

    def backup(self, path: str | os.PathLike[str]) -> pd.DataFrame:
        """Copy the store as it is at this moment to the new file *path*, while jobs run; its log goes to
        ``<path>.log``, and what its jobs have saved to ``<path>.files``.

        The copy is checked before it gets its name; what was made, and how many bytes. Raises ``StoreError`` where
        something is there already. ``geoflow restore`` puts it in the store's place again.
        """
        from geoflow.stores.backup import back_up
        from geoflow.views import frames

        logs.flush()
        if self.settings.store != ":memory:" and not os.path.exists(self.settings.store):
            raise StoreError(f"There is no store {self.settings.store_name} yet: nothing was copied.")
        return frames.files(copied=back_up(self.store, Path(path), self.runtime.log_path, self.runtime.saved_files))

    def forget(self, *, job_type: str | None = None, before: datetime | None = None) -> int:
        """Have nothing taken over from tasks of that type of job, or any, that ended *before* then; how many these are.

        The jobs, their tasks and their results stay. A time without a zone is local.
        """
        return self.store.forget(job_type and normalise(job_type), before.timestamp() if before else None)

    def prune(
        self,
        *,
        before: Moment | None = None,
        state: str | Sequence[str] | None = None,
        job_type: str | None = None,
        keep: int | None = None,
        confirm: bool = False,
    ) -> Pruned:
        """Show which jobs of the store would be removed, and with ``confirm=True`` remove them, with what they saved.

        They are those of which all holds that is said: that ended *before* then (``"2026-01-31"``, a datetime, or how
        long ago, as ``"30d"`` or a timedelta), are in that *state* or one of these (as ``session.jobs()`` shows them:
        ``"completed"``, ``"with_errors"``, ``"failed"``, ``"cancelled"``, ``"interrupted"``, ``"queued"``), of that
        *job_type*, and not among the last so many to *keep*. Without a state, those that have ended. A job that
        somebody drives stays. What other jobs took over from them stays theirs, with the files that it names. The
        store's file gets smaller. Their log lines stay. Raises ``ParameterError`` where nothing is said.
        """
        from geoflow.tools.keeping.prune import prune

        choice = self.choice(state, job_type)
        at = None if before is None else moment(before, self.runtime.clock.now(), "before")
        return prune(self.runtime, choice, before=at, keep=keep, confirm=confirm)

    def dump(self, job: str | JobHandle, path: str | os.PathLike[str] | None = None) -> dict[str, Any] | Path:
        """All that the store has of the *job*, a handle or the beginning of an id, at this moment, as JSON has it.

        The dict has ``geoflow`` (the version), ``format`` (1), ``job``, ``stages``, ``tasks`` and ``attempts``, those
        of plans that were set aside too, in rows as ``--json`` has them: times in ISO 8601, durations in seconds,
        secrets masked but in results. With *path* it is written to that new file, whole or not at all, whose path is
        returned. Raises ``StoreError`` where a file is there.
        """
        from geoflow.tools.keeping.dump import pieces, write

        job_id = job.id if isinstance(job, JobHandle) else job
        if path is not None:
            return write(self.runtime, job_id, Path(path))
        document: dict[str, Any] = json.loads("".join(pieces(self.runtime, job_id)))
        return document

    def size(self) -> Sizes:
        """What takes the space: the store's files, and which job types and jobs, by what they were given, gave, printed
        and saved. It looks at all that the store has, a second for each gigabyte or so.
        """
        from geoflow.tools.keeping.size import size

        return size(self.runtime)

    def types(self) -> Types:
        """What can be run, with its parameters: the job types that are registered, and those that geoflow brings."""
        from geoflow.tools.keeping.types import types

        return types(self.runtime.registry)

    def config(self) -> Config:
        """Each setting of the session, its value, and where that comes from.

        An argument counts before a variable (``GEOFLOW_WORKERS``), that before ``[tool.geoflow]`` of the nearest
        ``pyproject.toml``, in the folder where the session was opened or one above it, and that before the default.
        """
        from geoflow.tools.keeping.config import Config

        return Config(self.settings)

    def reset(self, *, confirm: bool = False) -> Pruned:
        """Remove all jobs, with what they saved; without ``confirm=True`` show them. The log stays.

        Raises ``StoreBusy``, and does nothing, while one of them is driven.
        """
        from geoflow.tools.keeping.prune import reset

        return reset(self.runtime, confirm=confirm)
