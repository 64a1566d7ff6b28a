"""Faults on purpose: which attempts of which tasks fail, hang, die, are slow, or return something else.

A fault is decided where the task runs, from the task and the number of the attempt alone: it shares no state, so it is
the same in worker processes, in any pool, and in this process, and the same every time.
"""

from __future__ import annotations

import os
import signal as signals
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from geoflow.core.models import TaskContext
from geoflow.engine import hooks
from geoflow.engine.parts import Parts
from geoflow.errors import ParameterError
from geoflow.jobtypes.contract import Handler, accepts_context, normalise
from geoflow.support.text import count, shorten
from geoflow.usercode.references import innermost

Task = str | tuple[str, int]
# What happens, given the context: None, and the handler runs, or what it is to have returned.
Act = Callable[[TaskContext], tuple[Any] | None]


@dataclass(frozen=True)
class Rule:
    """What is to happen to which tasks (all, for None) at which attempts (all, for None). It travels to the workers."""

    name: str
    task: Task | None
    attempts: frozenset[int] | None
    act: Act
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        task = self.task
        if not (task is None or isinstance(task, str) or (isinstance(task, tuple) and len(task) == 2)):
            raise ParameterError(f"A task is named by its id, its type, or (task_type, index), not {task!r}.")

    def concerns(self, task_id: str, names: tuple[str, str], stage: int, place: int) -> bool:
        """Whether it is meant for a task of these *names*, its type and its handler's, at this *place* in its stage."""
        kinds = [normalise(name) for name in names]
        if isinstance(self.task, str):
            named = normalise(self.task) in kinds or _begins(task_id, self.task)
        else:
            named = self.task is None or (normalise(self.task[0]) in kinds and self.task[1] == place)
        # Drawn by the task's place, not its id, which changes with a temporary folder.
        return named and Random(f"{self.seed}|{stage}|{names[0]}|{place}").random() < self.share


def _begins(task_id: str, text: str) -> bool:
    """Whether *text* is *task_id* or its beginning: ``s1-t1`` is none of ``s1-t10``, ``3fa9`` is one of ``3fa91c``."""
    rest = task_id[len(text) :]
    cuts_number = text[-1:].isdigit() and rest[:1].isdigit() and not set(task_id) <= set("0123456789abcdef")
    return bool(text) and task_id.startswith(text) and not cuts_number


class Faulty:
    """A handler to which the rules' faults happen. It travels with the handler inside it."""

    def __init__(self, handler: Handler, rules: tuple[Rule, ...]) -> None:
        self.handler = handler
        self.rules = rules
        self.takes_context = accepts_context(handler)
        # As the handler: what counts as its job type's own (S25), and what messages call it, hang on these.
        self.__name__ = _name(handler)
        self.__module__ = str(getattr(innermost(handler), "__module__", None) or "__main__")

    def __fingerprint__(self) -> list[Any]:
        return [self.handler]

    def __call__(self, params: dict[str, Any], context: TaskContext) -> Any:
        about = context.task_id, (context.task_type, self.__name__), context.stage, context.task_index
        for rule in self.rules:
            if (rule.attempts is None or context.attempt in rule.attempts) and rule.concerns(*about):
                returned = rule.act(context)
                if returned is not None:
                    return returned[0]
        return self.handler(params, context) if self.takes_context else self.handler(params)


def _name(handler: Handler) -> str:
    return str(getattr(innermost(handler), "__name__", type(handler).__name__))


# What may happen


def fail(
    task: Task,
    *,
    times: int | None = 1,
    with_: Callable[[str], BaseException] = OSError,
    message: str | None = None,
    attempts: Iterable[int] | None = None,
) -> Fault:
    """Have *task* raise the exception *with_*, of *message*, at its first *times* attempts (None: at all of them).

    *task* is a task's id or the beginning of it, the name of a task type or handler (all its tasks), or
    ``(task_type, index)``. *attempts*, numbers from 1 on, say instead of *times* which attempts. It holds for the jobs
    that are submitted, or taken up again, in the ``with`` block; several faults go together, the first first.
    At its end an ``AssertionError`` tells of a fault that was meant for none of their tasks.
    """
    return Fault(Rule("fail", task, _chosen(times, attempts), _raising("fail", with_, message)))


def fail_some(
    share: float = 0.1,
    seed: int = 7,
    *,
    task: str | None = None,
    times: int | None = 1,
    with_: Callable[[str], BaseException] = OSError,
    message: str | None = None,
    attempts: Iterable[int] | None = None,
) -> Fault:
    """Have about a *share* (0 to 1) of the tasks, or of those of *task*, fail as in `fail`.

    Which ones hangs on *seed* and on the tasks' places in their stages: they are the same each time.
    """
    if not 0 <= share <= 1:
        raise ParameterError(f"share is a part of the tasks, from 0 to 1, not {share!r}.")
    act = _raising("fail_some", with_, message)
    return Fault(Rule("fail_some", task, _chosen(times, attempts), act, share, seed))


def hang(task: Task, *, seconds: float = 60.0, times: int | None = 1, attempts: Iterable[int] | None = None) -> Fault:
    """Have *task* stand still until its timeout, a cancel or an interrupt ends it; see `fail` for *task* and the rest.

    Where nothing has ended it after *seconds*, it fails for good and says so. It needs worker processes or a pool.
    """
    return Fault(Rule("hang", task, _chosen(times, attempts), partial(_hang, seconds)), processes=True)


def die(
    task: Task, *, signal: int = signals.SIGKILL, times: int | None = 1, attempts: Iterable[int] | None = None
) -> Fault:
    """Have the worker process of *task* ended by *signal* while it runs; see `fail` for *task* and the rest.

    It needs worker processes: with ``workers=0`` it is refused, since the process that tests would die.
    """
    here = (socket.gethostname(), os.getpid())
    act = partial(_die, signals.Signals(signal), here)
    return Fault(Rule("die", task, _chosen(times, attempts), act), processes=True)


def slow(task: Task, seconds: float, *, times: int | None = None, attempts: Iterable[int] | None = None) -> Fault:
    """Have *task* wait so many *seconds* before its handler runs, at all attempts; see `fail` for *task*."""
    return Fault(Rule("slow", task, _chosen(times, attempts), partial(_slow, seconds)))


def returns(task: Task, value: Any, *, times: int | None = None, attempts: Iterable[int] | None = None) -> Fault:
    """Have *value* stand for what the handler of *task* returns, which is not called; see `fail` for *task*.

    A handler returns ``{"success": True, "result": ...}``; anything may be given, to see what becomes of it.
    """
    return Fault(Rule("returns", task, _chosen(times, attempts), partial(_return, value)))


def _raising(name: str, with_: Callable[[str], BaseException], message: str | None) -> Act:
    if not callable(with_):  # an exception that is made already has a message of its own
        raise ParameterError(f"with_ is a class, such as ValueError, not {with_!r}: give its text as message.")
    return partial(_raise, name, with_, message)


def _raise(name: str, with_: Callable[[str], BaseException], message: str | None, context: TaskContext) -> None:
    told = f"gf.testing.{name}: attempt {context.attempt} of task {context.task_id} fails on purpose"
    raise with_(told if message is None else message)


def _hang(seconds: float, context: TaskContext) -> None:
    time.sleep(seconds)
    raise ValueError(  # which is permanent: a retry would hide that the timeout is missing
        f"gf.testing.hang: nothing stopped task {context.task_id} for {seconds:g} s. Give its stage a timeout, or the "
        "session a task_timeout."
    )


def _die(signal: signals.Signals, driver: tuple[str, int], context: TaskContext) -> None:
    if (socket.gethostname(), os.getpid()) == driver:  # a pool of threads
        raise ValueError(f"gf.testing.die: task {context.task_id} runs in the testing process itself, which would die.")
    os.kill(os.getpid(), signal)
    raise ValueError(f"gf.testing.die: {signal.name} did not end the worker process of task {context.task_id}.")


def _slow(seconds: float, context: TaskContext) -> None:
    time.sleep(seconds)


def _return(value: Any, context: TaskContext) -> tuple[Any]:
    return (value,)


# While it holds

_active: list[Fault] = []


class Fault:
    """A fault that holds within ``with``; see `fail`."""

    def __init__(self, rule: Rule, *, processes: bool = False) -> None:
        self.rule = rule
        self.needs_processes = processes
        self._before: dict[Parts, int] = {}

    def __repr__(self) -> str:
        about = [] if self.rule.task is None else [shorten(repr(self.rule.task), 60)]
        about += [f"share={self.rule.share:g}", f"seed={self.rule.seed}"] if self.rule.name == "fail_some" else []
        return f"gf.testing.{self.rule.name}({', '.join(about)})"

    def __enter__(self) -> Fault:
        hooks.have_replaced(_faulty)
        self._before = {}
        _active.append(self)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        __tracebackhide__ = True  # pytest shows the test, not this
        _active.remove(self)
        if not _active:
            hooks.have_replaced(None)
        try:
            if exc_type is None and self.rule.share > 0:
                self._check()
        finally:
            if not _active:
                for seen in self._before:
                    seen.claimed = None

    def sees(self, session: Parts) -> None:
        """A job is about to be driven with the parts of a *session*."""
        if self.needs_processes and session.is_inline:
            raise ParameterError(
                f"{self} needs a process that it may end, and workers=0 runs the tasks in this one: open the session "
                "with workers=1, or in a test mark it with @pytest.mark.geoflow(workers=1)."
            )
        if session.claimed is None:
            session.claimed = []
        self._before.setdefault(session, len(session.claimed))

    def _check(self) -> None:
        """A test whose fault meets nothing tests nothing: tell of it, as far as that is known by now."""
        __tracebackhide__ = True
        from geoflow.views import frames

        jobs, tasks = 0, list[str]()
        for session, before in self._before.items():
            if (store := session.open_store) is None:
                return  # it was closed
            for run in (session.claimed or [])[before:]:
                if not run.done.is_set():
                    return
                jobs += 1
                found = frames.tasks(store, run.job_id)[["task_id", "task_type", "stage", "task_index"]]
                for task_id, kind, stage, place in found.to_numpy():
                    if self.rule.concerns(task_id, (kind, _name(run.job_type.handlers[kind])), stage, place):
                        return
                    tasks.append(f"{shorten(task_id, 40)} ({kind}, {place})")
        if not jobs:
            raise AssertionError(
                f"{self} held for no job: none was submitted or taken up in its block. One that exists already runs "
                'again with on_existing="rerun".'
            )
        shown = f": {', '.join(tasks[:3])}{' and so on' if len(tasks) > 3 else ''}" if tasks else ""
        raise AssertionError(f"{self} was meant for none of the {count(len(tasks), 'task')} in its block{shown}.")


def _chosen(times: int | None, attempts: Iterable[int] | None) -> frozenset[int] | None:
    """The attempts that are meant, or None for all."""
    if times is not None and (type(times) is not int or times < 1):
        raise ParameterError(f"times is how many attempts, from 1 on, or None for all of them, not {times!r}.")
    if attempts is None:
        return None if times is None else frozenset(range(1, times + 1))
    chosen = list(attempts) if isinstance(attempts, Iterable) else []
    if not chosen or any(type(number) is not int or number < 1 for number in chosen):
        raise ParameterError(f"attempts are the numbers of some attempts, from 1 on, as in [1, 3], not {attempts!r}.")
    if times not in (None, 1):  # which is what it is when nobody says it
        raise ParameterError(f"times={times} and attempts={chosen} both say which attempts: give one of them.")
    return frozenset(chosen)


def _faulty(session: Parts, handlers: Mapping[str, Handler]) -> Mapping[str, Handler]:
    for fault in _active:
        fault.sees(session)
    rules = tuple(fault.rule for fault in _active)
    return {name: Faulty(handler, rules) for name, handler in handlers.items()}
