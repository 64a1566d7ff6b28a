"""Job types for the tests: tasks that do as their parameters say, in one, two or three stages."""

from __future__ import annotations

import atexit
import concurrent.futures
import ctypes
import logging
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from geoflow.jobtypes.contract import job_id_for


def act(params: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Do what ``params["do"]`` says; leave a line in ``params["trace"]``, first, and in ``params["stamp"]``, last."""
    if params.get("trace"):
        with open(params["trace"], "a") as file:
            file.write(f"{context.task_id} {context.attempt}\n")
    do, value = params.get("do", "ok"), params.get("value")
    if params.get("until_attempt") and context.attempt >= params["until_attempt"]:
        do, value = params.get("then", ("ok", value))
    ACTIONS.get(do, lambda value: None)(value)
    if do == "return":
        return value  # type: ignore[return-value]
    if do in RETURNS:
        return RETURNS[do](value)
    if do == "fail":
        return {"success": False, "error": "it said no", **(value or {})}
    if params.get("stamp"):
        with open(params["stamp"], "a") as file:
            file.write(f"{context.task_id} {os.getpid()} {time.thread_time()}\n")
    return {"success": True, "result": {"index": context.task_index, "value": value, "pid": os.getpid()}}


def _raise(name: str) -> None:
    errors = {"OSError": OSError, "ValueError": ValueError, "RuntimeError": RuntimeError, "SystemExit": SystemExit}
    errors |= {"KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}
    errors |= {"GeneratorExit": GeneratorExit, "StopIteration": StopIteration}
    if name == "Abandoned":  # each worker imports this module, and asyncio takes as long as all else in it
        import asyncio

        errors[name] = asyncio.CancelledError
    raise errors[name](f"a {name} on purpose")


def _hang(value: Any) -> None:
    time.sleep(value or 60)


def _hang_in_c(value: Any) -> None:
    re.fullmatch("(a+)+", "a" * 60 + "b")  # for years, and it keeps the GIL


def _say(value: str) -> None:
    print(value)
    print("on stderr", file=sys.stderr)
    os.write(1, b"from native code\n")
    logging.getLogger("users.own").warning("logged: %s", value)


def _spawn_child(path: str) -> None:
    Path(path).write_text(str(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")))
    time.sleep(60)


def _note_pid(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(60)


def _fork_and_die(value: Any) -> None:
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def _say_then_die(value: str) -> None:
    print(value)
    os.kill(os.getpid(), signal.SIGKILL)


def _say_then_hang(value: list[str]) -> None:
    path, text = value
    print(text)
    Path(path).touch()
    time.sleep(60)


def _die_answering(value: Any) -> None:
    def half(self: Connection, content: bytes) -> None:
        os.write(self.fileno(), struct.pack("!i", len(content)) + content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send_bytes = half  # type: ignore[attr-defined]


class TwoArguments(Exception):
    """It can be pickled, and never be unpickled."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


class Holding(Exception):
    """It cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class Silent(Exception):
    """It has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _raise_odd(name: str) -> None:
    errors: dict[str, Any] = {
        "two arguments": lambda: TwoArguments("it broke", "noon"),
        "lock": Holding,
        "no text": Silent,
        "long": lambda: RuntimeError("x" * 10_000_000),
        "group": lambda: ExceptionGroup("several", [Holding(), Silent()]),
        "surrogate": lambda: RuntimeError("\ud800\0"),
    }
    raise errors[name]()


def _spin(value: Any) -> None:
    while True:
        pass


def _hang_deaf(value: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


def _recurse(value: Any) -> None:
    _recurse(value)


def _limit_memory(megabytes: int) -> None:
    """Let this process have so much more, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _allocate(megabytes: int) -> None:
    _limit_memory(megabytes)
    bytearray(2 * megabytes << 20)


def _fail_holding(megabytes: int) -> None:
    held = bytearray(os.urandom(1 << 20) * megabytes)
    raise RuntimeError(f"while it held {len(held)} bytes")


def _leave_child(path: str, *, own_session: bool = False) -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=own_session)
    Path(path).write_text(str(child.pid))


def _leave_thread(value: Any) -> None:
    threading.Thread(target=time.sleep, args=(60,)).start()


def _leave_exit_handler(value: Any) -> None:
    atexit.register(time.sleep, 60)


def _change_process(folder: str) -> None:
    """All that a handler can change of its process and forget to change back."""
    os.chdir(folder)
    os.environ.clear()
    os.umask(0o777)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    sys.setrecursionlimit(100)
    sys.stdout = sys.stderr = None
    logging.disable(logging.CRITICAL)
    sys.path.clear()


def _fork_and_both_return(path: str) -> None:
    if os.fork() == 0:
        Path(path).write_text(str(os.getpid()))


def _wait_for(path: str) -> None:
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was never made")
        time.sleep(0.01)


ACTIONS: dict[str, Any] = {
    "wait for": _wait_for,
    "make": lambda path: open(path, "w").close(),
    "raise": _raise,
    "signal": lambda value: os.kill(os.getpid(), getattr(signal, value)),
    "segfault": lambda value: ctypes.string_at(0),
    "exit": os._exit,
    "hang": _hang,
    "hang in c": _hang_in_c,
    "say": _say,
    "sleep": time.sleep,
    "child then hang": _spawn_child,
    "pid then hang": _note_pid,
    "fork and die": _fork_and_die,
    "say then die": _say_then_die,
    "die answering": _die_answering,
    "say then hang": _say_then_hang,
    "raise odd": _raise_odd,
    "spin": _spin,
    "hang deaf": _hang_deaf,
    "exit from c": lambda value: ctypes.CDLL(None).exit(value),
    "recurse": _recurse,
    "allocate": _allocate,
    "fail holding": _fail_holding,
    "close": lambda value: os.closerange(*value),
    "print much": lambda megabytes: [os.write(1, b"x" * 999 + b"\n" * 25) for _ in range(megabytes << 10)],
    "leave child": _leave_child,
    "leave child of its own": lambda path: _leave_child(path, own_session=True),
    "leave thread": _leave_thread,
    "leave exit handler": _leave_exit_handler,
    "change process": _change_process,
    "fork and both return": _fork_and_both_return,
    "import": __import__,
}


async def _later() -> dict[str, Any]:
    return {"success": True}


def _unfinished(value: Any) -> Any:
    later = _later()
    later.close()  # else it is complained of that nobody waited for it
    return later


def _too_large_to_store(megabytes: int) -> dict[str, Any]:
    text = "x" * (megabytes << 20)
    _limit_memory(1)
    return {"success": True, "result": [text, text]}


def _tell(source: str) -> dict[str, Any]:
    """Run *source*, and tell what it calls ``told``."""
    names: dict[str, Any] = {}
    exec(source, names)
    return {"success": True, "result": {"told": names.get("told"), "pid": os.getpid()}}


RETURNS: dict[str, Any] = {
    "tell": _tell,
    "return much": lambda megabytes: {"success": True, "result": {"text": "x" * (megabytes << 20)}},
    "return more than memory": _too_large_to_store,
    "return coroutine": _unfinished,
    "return future": lambda value: concurrent.futures.Future(),
    "return generator": lambda value: (n for n in range(3)),
    "return lock": lambda value: {"success": True, "result": {"lock": threading.Lock()}},
    "return function": lambda value: {"success": True, "result": {"then": _hang}},
}


def collect(params: dict[str, Any]) -> dict[str, Any]:
    """Say what came in."""
    return {"success": True, "result": {"count": len(params["previous_results"]), "given": sorted(params)}}


class Acts:
    """One stage of the tasks in ``tasks``: a list of parameters for `act`."""

    job_type = "acts"
    description = "Tasks that do as they are told."
    stages = [{"number": 1, "name": "act", "task_type": "act", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(params.get("tasks"), list):
            raise ValueError("tasks must be a list of dicts")
        return params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        return job_id_for(cls.job_type, params)

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        tasks = (
            job_params["tasks"] if stage == 1 else job_params.get(f"tasks_{stage}", [{}] * len(previous_results or ()))
        )
        _misbehave(job_params.get("plan") if stage == 1 else None)
        return [
            {"task_id": f"s{stage}-t{index}", "task_type": "act", "parameters": task}
            for index, task in enumerate(tasks)
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        do = context.parameters.get("finalize")
        if do == "none":
            return None  # type: ignore[return-value]
        _misbehave(do)
        if do == "lock":
            return {"lock": threading.Lock()}
        return {
            "completed": sum(task.success for task in context.task_results),
            "values": [task.result_data.get("result", {}).get("value") for task in context.task_results],
            "statuses": [str(task.status) for task in context.task_results],
        }


def _misbehave(how: str | None) -> None:
    if how == "raise":
        raise RuntimeError("on purpose")
    if how == "hang":
        time.sleep(60)
    if how == "slow":
        time.sleep(0.4)
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)


class TwoActs(Acts):
    """As `Acts`, and a second stage of one task for each result, or of ``tasks_2``."""

    job_type = "two_acts"
    stages = [*Acts.stages, {"number": 2, "name": "again", "task_type": "act", "parallelism": "fan_out"}]


class ThreeActs(TwoActs):
    """As `TwoActs`, and a fan-in over the second stage."""

    job_type = "three_acts"
    stages = [*TwoActs.stages, {"number": 3, "name": "collect", "task_type": "collect", "parallelism": "fan_in"}]


class LargestActs(Acts):
    """As `Acts`, the largest first, by the ``size`` that some tasks have."""

    job_type = "largest_acts"
    stages = [{**Acts.stages[0], "order": "largest"}]

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        plan = super().create_tasks_for_stage(stage, job_params, job_id, previous_results)
        sizes = job_params["sizes"]
        return [{**task, "metadata": {"size": size}} for task, size in zip(plan, sizes, strict=True)]


ALL_JOBS = {"largest_acts": LargestActs, "acts": Acts, "two_acts": TwoActs, "three_acts": ThreeActs}
ALL_HANDLERS = {"act": act, "collect": collect}
