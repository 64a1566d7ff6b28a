"""The ``geoflow`` command: the verbs in a terminal. Errors are lines there, signals interrupts, outcomes exit codes.

What may be typed is in `grammar`, what the verbs do in `verbs`, how it is shown in `results`.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import NoReturn

from geoflow.commands import grammar
from geoflow.commands.grammar import COMPLETED, REFUSED, Request
from geoflow.commands.hints import command, tell
from geoflow.commands.values import ASKED
from geoflow.errors import GeoflowError
from geoflow.support.masking import safe

_RUN_CODE = ("run", "plan", "probe", "resume", "retry", "rerun")
INTERRUPTED, UNREAD = 130, 141


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end the process as an interrupt does: what runs is put back first."""

    number = signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Do what *argv* (else the command line) says; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    warnings.showwarning = _warned
    _have_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if instruction := os.environ.get(ASKED):
            from geoflow.commands import shells

            return COMPLETED if _printed([shells.answer(instruction, grammar.commands())]) else UNREAD
        request = grammar.parse(words)
        request.typed = list(words)
        return _done(request)
    except KeyboardInterrupt as exc:
        tell("interrupted.")
        return 128 + exc.number if isinstance(exc, Terminated) else INTERRUPTED
    except Exception as exc:
        _complain(exc, "--debug" in words)
        return REFUSED


def _done(request: Request) -> int:
    if request.verb in _RUN_CODE and request.workers != 0 and not getattr(request, "detach", False):
        from geoflow.executors.spawning import warm_up

        warm_up()  # the workers' server starts while this process imports the rest
    if request.verb == "mcp":
        return _mcp(request)
    from geoflow.commands import results, verbs

    session = verbs.open_session(request)
    gc.enable()  # all is imported; `__main__` has it off until here
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a job type prints is not the output
            result = verbs.VERBS[request.verb](session, request)
        return result.exit_status if _printed(results.lines_of(result, request)) else UNREAD
    finally:
        session.close()
        for run in list(session.runtime.active.values()):
            if run.interrupted:
                tell(f"Job {run.job_id[:8]} was put back.\nNext: {command(request, 'resume', run.row)}")


def _mcp(request: Request) -> int:
    try:
        from geoflow.commands import mcp_server
    except ImportError as exc:
        raise GeoflowError(f"geoflow mcp needs the package mcp: pip install 'geoflow[mcp]' ({exc}).") from None
    gc.enable()
    return mcp_server.serve(request)


def _printed(lines: Iterable[str | bytes]) -> bool:
    """Print *lines*; False when whoever reads them has seen enough, or they cannot be written."""
    try:
        for line in lines:
            if isinstance(line, bytes):
                sys.stdout.buffer.write(line)
            else:
                print(line)
        sys.stdout.flush()
    except OSError as exc:  # its reader has seen enough, or the disk is full
        if not isinstance(exc, BrokenPipeError):
            tell(f"error: the output could not be written: {exc.strerror}. What was asked for is done.")
        # What is still in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _terminate(number: int, frame: object) -> NoReturn:
    if number != signal.SIGTERM:  # a terminal that goes may say so twice, once while its job is put back
        signal.signal(number, signal.SIG_IGN)
    ended = Terminated()
    ended.number = signal.Signals(number)
    raise ended


def _have_streams() -> None:
    """Have standard streams where the shell closed some, lest the next file that is opened be one of them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    tell(f"warning: {getattr(message, 'in_terminal', '') or message}")


def _complain(exc: Exception, debug: bool) -> None:
    if debug:
        print(safe("".join(traceback.format_exception(exc))), file=sys.stderr)
    message = str(exc)
    if isinstance(exc, GeoflowError):
        message = exc.in_terminal or message
    else:
        from geoflow.views.tracebacks import place

        where = place("".join(traceback.format_tb(exc.__traceback__)))
        message = f"{type(exc).__name__}: {message} ({where}). --debug shows the traceback."
    tell(f"error: {message}")
