"""The live view of one job: it follows the store while the job runs, and is plain HTML in the end.

A view is two outputs of a cell. The first is the drawing: widgets while somebody drives the job, which go on whatever
the kernel does and whether the page is loaded again; static HTML from then on, which a saved notebook keeps. The second
is empty, until the job has stopped and something is left to do: then it has the buttons and the list of tasks. Opened
again without its kernel it shows nothing (style.css sees to that), and the drawing stays.

One thread a job draws. It starts when a view is shown or a button was clicked, and ends when nobody drives the job. A
fault in drawing is logged, leaves less to see (first no widgets, then nothing new), and never touches the job.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeGuard

from geoflow.engine.runtime import Runtime
from geoflow.notebook.outputs import SECONDS_BETWEEN, Outputs, detached, logger, safely, static
from geoflow.notebook.pictured import name_of, pictures
from geoflow.notebook.widget import Panel
from geoflow.stores.store import Store
from geoflow.support.masking import mask_text
from geoflow.views.model import JobView
from geoflow.views.tasks import listed, task

SECONDS_BETWEEN_LISTS = 2.0
SHARE = 10  # one part in so many of the time may go into drawing
PATIENCE = 20  # looks at a store that cannot be read
KEPT = 8  # panels of jobs that have stopped
ENOUGH_TO_SEE = 1.0  # seconds that a job ran: of a shorter one its cell has no pictures, but the job itself has
WATCHED = 200  # jobs whose views are known; older views stay as they are


class Monitor:
    """What is shown of one job of a session, in however many cells; see `monitor_of`.

    Of a job that has stopped, only the views that were last live have buttons: those before them are history.
    """

    def __init__(self, runtime: Runtime, job_id: str) -> None:
        self._runtime = weakref.ref(runtime)
        self._job_id = job_id
        self._widgets = runtime.settings.display != "html"
        self.panel: Panel | None = None
        self._views: list[Outputs] = []
        self._context = Context()
        self._lock = threading.RLock()
        self._poke = threading.Event()
        self._following = False
        self._looks = 0  # what was seen before the last of these is out of date
        self._acting = threading.Lock()  # held while what was clicked is done
        self._last: JobView | None = None
        self._listed = 0.0
        self._seen_running = False  # by a view that is still there
        self._pictured: tuple[Any, list[tuple[str, str]]] = (None, [])  # how the job had stopped, and its pictures then

    # Showing

    def show(self, runtime: Runtime, *, asked_for: bool = False) -> None:
        """Show the job in this cell, unless it is shown here already, and keep it up to date from now on.

        With *asked_for* it keeps its list of tasks also when nothing is left to do.
        """
        view = self._last = runtime.snapshot(self._job_id)
        with self._lock:
            self._context = detached()
            here = [shown for shown in self._views if shown.is_here()]
            history = [old for old in self._views if old not in here and (old.settled or not self._following)]
            for old in history:
                old.equip(None)
            self._views = [shown for shown in self._views if shown not in history]
            if not here:
                self._views.append(Outputs(view, asked_for))
            elif asked_for:
                here[0].asked_for = True
        self.follow(runtime, after=SECONDS_BETWEEN if view.driver is not None else 0)

    def shown_here(self) -> bool:
        """Whether this very cell has shown the job as it is at rest."""
        return any(shown.is_here() and not shown.live for shown in self._views)

    def follow(self, runtime: Runtime, after: float = 0) -> None:
        """Look at the job, at first *after* so many seconds or at its end, and for as long as somebody drives it."""
        with self._lock:
            self._looks += 1
            self._poke.set()
            if self._following:
                return
            self._following = True
            context = self._context.copy()
        given = (self._follow, runtime, after)
        threading.Thread(target=context.run, args=given, name="geoflow-view", daemon=True).start()

    def settle(self, runtime: Runtime) -> None:
        """The waiting is over: if the job has stopped, show how, as part of this cell.

        The thread does so too, but a program that runs a notebook takes in only what the current cell sends.
        """
        view = self._look(runtime)
        with self._lock:
            self._looks += 1
            if self._is_over(view):
                self._draw_static(view, again=True, pictures=self._pictures(view, runtime))
                self._announce(view)
                for shown in self._views:
                    shown.settled = True

    # Following, in a thread of its own

    def _follow(self, runtime: Runtime, after: float) -> None:
        self._pause(runtime, after)  # a job that is shorter needs no widgets
        failures = 0
        while True:
            with self._lock:
                looks = self._looks
                self._poke.clear()
            began = time.monotonic()
            view = self._look(runtime)
            failures = 0 if view else failures + 1
            has_use = view is not None and (view.actions or any(shown.asked_for for shown in self._views))
            if has_use and self._widgets and self.panel is None:
                self._make_panel()
                continue  # the first import takes a while, and what was seen grows old
            with self._lock:
                if looks == self._looks and (failures > PATIENCE or self._is_over(view)):
                    self._following = False
                    if view is not None:
                        drawn = self._pictures(view, runtime) if self._is_over(view) else []
                        self._safely(partial(self._freeze, drawn), view)
                    return
                if looks == self._looks and view is not None:
                    self._safely(self._draw, view)
            self._pause(runtime, max(SECONDS_BETWEEN, SHARE * (time.monotonic() - began)))

    def _is_over(self, view: JobView | None) -> TypeGuard[JobView]:
        return view is not None and view.driver is None and not self._acting.locked()

    def _pause(self, runtime: Runtime, seconds: float) -> None:
        if (run := runtime.running(self._job_id)) is not None:
            run.done.wait(seconds)  # its end is not to be missed: the session may be closed right after it
        else:
            self._poke.wait(seconds)

    def _look(self, runtime: Runtime) -> JobView | None:
        """The job as it is now; None when that cannot be seen. A session that is closed is not opened for it."""
        store = runtime.open_store
        if store is None:  # to close it is to interrupt its jobs
            return None if self._last is None else self._last._replace(driver=None, remaining=None)
        try:
            view = runtime.seen_in(store, self._job_id)
            self._last = view if view.driver else view._replace(stale=_stale(runtime, store, self._job_id))
        except Exception:
            logger.exception("the job could not be looked at", extra={"job_id": self._job_id})
            return None
        finally:
            if runtime.open_store is not store:
                store.close()  # the session was closed meanwhile, and looking has opened it again
        return self._last

    def _safely(self, show: Callable[[JobView], None], view: JobView) -> None:
        if not safely(lambda: show(view)) and self._widgets:
            self._widgets, self.panel = False, None
            safely(lambda: show(view))

    def _draw(self, view: JobView) -> None:
        self._seen_running = True
        if self.panel is None:
            self._draw_static(view)
            return
        self.panel.draw(view)
        for shown in self._views:
            shown.go_live(self.panel.root, view)
        if time.monotonic() - self._listed > SECONDS_BETWEEN_LISTS:
            self._list(self.panel)

    def _draw_static(self, view: JobView, again: bool = False, pictures: Sequence[tuple[str, str]] = ()) -> None:
        bundle = static(view, pictures)
        for shown in self._views:
            shown.draw(bundle, again)

    def _announce(self, view: JobView) -> None:
        """Once, of a job that was shown while it ran."""
        if self._seen_running and self._views:
            self._seen_running = False
            self._views[-1].announce(view)

    def _pictures(self, view: JobView, runtime: Runtime) -> list[tuple[str, str]]:
        """Those of a job that ran for long enough to have any, made once for what it has come to."""
        made: list[tuple[str, str]] = []
        store, of = runtime.open_store, (view.state, view.elapsed)
        if of == self._pictured[0] or store is None or (view.elapsed or 0) < ENOUGH_TO_SEE:
            return self._pictured[1] if of == self._pictured[0] else made
        safely(lambda: made.extend(pictures(store, self._job_id, name_of(view.job_type, self._job_id))))
        if runtime.open_store is not store:
            store.close()  # see `_look`
        self._pictured = of, made
        return made

    def _freeze(self, pictures: Sequence[tuple[str, str]], view: JobView) -> None:
        """Nobody drives the job: static HTML, and below it what is left to do."""
        self._draw_static(view, pictures=pictures)
        self._announce(view)
        if self.panel is None:
            return
        # After a reload of the page the widgets stay where they are, since no display is known by its id any more.
        self._context.copy().run(self.panel.draw, view)
        for shown in self._views:
            shown.equip(self.panel.tools if view.actions or shown.asked_for else None)
        self._list(self.panel)
        for old in _kept_but(self):
            self._soon(old.retire)

    def _make_panel(self) -> None:
        try:
            self.panel = self._context.copy().run(Panel, self._act, self._browse)
        except Exception:
            logger.warning("no widgets", exc_info=True)
            self._widgets = False

    def retire(self) -> None:
        """Let the widgets go: what is shown stays as it is, without them."""
        with self._lock:
            if self.panel is not None and not self._following:
                for shown in self._views:
                    shown.equip(None)
                self.panel.close()
                self.panel = None

    # What was clicked, in whichever thread

    def _act(self, name: str) -> None:
        if self.panel is not None and self._acting.acquire(blocking=False):
            self._soon(self._acted, name, self.panel)

    def _acted(self, name: str, panel: Panel) -> None:
        panel.disable(True)
        panel.say()
        with self._lock:
            for shown in self._views:
                shown.settled = False
        runtime = self._runtime()
        try:
            if runtime is None:
                panel.say("The session of this view is gone: open one on the same store, and use session.job(...).")
            else:
                getattr(runtime, name)(self._job_id)  # the actions are called as what does them
        except Exception as exc:
            secrets = runtime.settings.secrets if runtime is not None else ()
            panel.say(mask_text(f"{type(exc).__name__}: {exc}", secrets))
        finally:
            self._acting.release()
            panel.disable(False)
        if runtime is not None:
            self.follow(runtime)

    def _browse(self) -> None:
        if self.panel is not None:
            self._soon(self._list, self.panel)

    def _list(self, panel: Panel) -> None:
        if not panel.browsing:
            return
        runtime = self._runtime()
        store = runtime.open_store if runtime is not None else None
        if runtime is None or store is None:
            panel.say("The session of this view is closed: its tasks cannot be looked at.")
            return
        with self._lock:
            try:
                secrets, table, view = runtime.settings.secrets, panel.table, self._last
                running = {it.task_id: it.seconds for it in view.running} if view else {}
                found = listed(store, self._job_id, table.wanted, table.first, running, secrets)
                table.fill(found, view.counts if view else {})
                key = table.chosen
                chosen = task(store, self._job_id, key, secrets, runtime.log_path) if key else None
                panel.show_task(chosen)
            except Exception:
                logger.exception("the tasks could not be listed", extra={"job_id": self._job_id})
            self._listed = time.monotonic()

    def _soon(self, act: Callable[..., None], *given: object) -> None:
        """In a thread, so that the loop that brought the click goes on."""
        threading.Thread(target=self._context.copy().run, args=(act, *given), name="geoflow-click", daemon=True).start()


def _stale(runtime: Runtime, store: Store, job_id: str) -> int:
    """How many of its tasks completed with older code; none where this session does not know that."""
    with suppress(Exception):  # its type may be unknown here, or wrong at the moment: then nothing is offered
        row = store.job(job_id)
        return 0 if row is None else sum(kind.tasks for kind in runtime.stale_in(store, row))
    return 0


_monitors: weakref.WeakKeyDictionary[Runtime, dict[str, Monitor]] = weakref.WeakKeyDictionary()
_keeping = threading.Lock()
_kept: list[Monitor] = []


def monitor_of(runtime: Runtime, job_id: str) -> Monitor:
    """The one monitor of the job in its session."""
    of_session = _monitors.setdefault(runtime, {})
    monitor = of_session.setdefault(job_id, Monitor(runtime, job_id))
    for old_id, old in list(of_session.items())[:-WATCHED]:
        if old is not monitor and not old._following:
            of_session.pop(old_id, None)
    return monitor


def _kept_but(monitor: Monitor) -> list[Monitor]:
    """Remember that *monitor* has a panel; those that have had one for the longest, of jobs that stopped long ago."""
    with _keeping:
        kept = [*(each for each in _kept if each is not monitor), monitor]
        _kept[:] = kept[-KEPT:]
        return kept[:-KEPT]
