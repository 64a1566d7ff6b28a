"""The ``geoflow`` command: the verbs in a terminal. Errors are lines there, signals interrupts, outcomes exit codes.

What the verbs do is in `geoflow.verbs`, how it is shown in `geoflow.output`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from geoflow import output, verbs
from geoflow.errors import GeoflowError
from geoflow.text import exact, mask_text, plain

COMPLETED, NOT_COMPLETED, REFUSED, WITH_ERRORS, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141
EXIT_CODES = """\
exit codes:
  0    the job completed; for a verb that only looks: it was shown
  1    the job failed, was cancelled, or has not ended
  2    nothing was done: a bad command, job type, parameter, job id or store
  3    the job completed, but its finalize failed (see geoflow refinalize)
  130  interrupted; the job was put back, and geoflow resume goes on with it
       (143 for SIGTERM, 129 for SIGHUP)
"""


class Stopped(KeyboardInterrupt):
    """A signal that ends the process as an interrupt would: what runs is put back first."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """Do what *argv* (else the command line) says; the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals(), warnings.catch_warnings():
            warnings.showwarning = _warned
            try:
                args = verbs.parse(words or ["--help"], epilog=EXIT_CODES)
            except SystemExit:  # --help or --version were asked for, and have been answered
                return (COMPLETED if words else REFUSED) if _printed(()) else UNREAD
            return _done(args)
    except KeyboardInterrupt as exc:
        verbs.tell("interrupted.")
        return getattr(exc, "code", INTERRUPTED)
    except (Exception, SystemExit) as exc:  # a job type's own code may raise anything, and even try to exit
        _complain(exc, "--debug" in words)
        return REFUSED


def _done(args: argparse.Namespace) -> int:
    session = verbs.open_session(args, "none" if args.json else None)
    try:
        with _aside() if args.json else contextlib.nullcontext():
            found = verbs.VERBS[args.verb](session, args)
        return _exit_code(found, args.verb) if _printed(output.lines(found, session, args)) else UNREAD
    except KeyboardInterrupt as exc:
        session.close()
        told = ["interrupted."]
        for run in session._runs.values():
            if run.interrupted:
                told.append(f"Job {run.job_id[:8]} was put back.\nNext: {verbs.command(args, 'resume', run.row)}")
        verbs.tell(" ".join(told))
        return getattr(exc, "code", INTERRUPTED)
    finally:
        session.close()


def _printed(lines: Iterable[str]) -> bool:
    """Print *lines*; False when whoever reads them has seen enough."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _exit_code(found: Any, verb: str) -> int:
    if isinstance(found, list):
        codes = {_exit_code(job, verb) for job in found}
        return NOT_COMPLETED if NOT_COMPLETED in codes else max(codes, default=COMPLETED)
    if verb in ("jobs", "status", "tasks", "errors"):
        return COMPLETED
    if verb == "cancel":
        return COMPLETED if found.status == "cancelled" else NOT_COMPLETED
    if found.status != "completed":
        return NOT_COMPLETED
    return WITH_ERRORS if found.with_errors else COMPLETED


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Have all that user code prints in this process go to stderr, native code's too: it is not the document."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the verb in good order, unless someone has other plans for them."""

    def stop(number: int, frame: object) -> NoReturn:
        raise Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    verbs.tell(f"warning: {mask_text(exact(message))}")


def _complain(exc: BaseException, debug: bool) -> None:
    message = exact(exc)
    if not isinstance(exc, GeoflowError):
        from geoflow.notebook.failures import place

        where = place("".join(traceback.format_tb(exc.__traceback__)))
        message = f"{type(exc).__name__}: {message}{f' ({where})' if where else ''}"
        message += "" if debug else " --debug shows the traceback."
    if debug:
        print(plain(mask_text("".join(traceback.format_exception(exc)))), file=sys.stderr)
    verbs.tell(f"error: {mask_text(message)}")
