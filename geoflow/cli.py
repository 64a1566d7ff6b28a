"""The ``geoflow`` command: the verbs in a terminal. Errors are lines there, signals interrupts, outcomes exit codes.

What may be typed is in `geoflow.grammar`, what the verbs do in `geoflow.verbs`, how it is shown in `geoflow.output`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from geoflow import grammar, output, verbs
from geoflow.errors import GeoflowError
from geoflow.text import safe

COMPLETED, NOT_COMPLETED, REFUSED, WITH_ERRORS, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141
EXIT_CODES = """\
exit codes:
  0    the job completed; for a verb that only looks: it was shown
  1    the job failed, was cancelled, or has not ended; doctor or check found a problem
  2    nothing was done: a bad command, job type, parameter, job id or store
  3    the job completed, but its finalize failed (see geoflow refinalize)
  130  interrupted; the job was put back, and geoflow resume goes on with it
       (143 for SIGTERM), with --load FILE where its type is in a file
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends the process as an interrupt does: what runs is put back first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what *argv* (else the command line) says; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    warnings.showwarning = _warned
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _done(grammar.parse(words, epilog=EXIT_CODES))
    except KeyboardInterrupt as exc:
        verbs.tell("interrupted.")
        return 128 + signal.SIGTERM if isinstance(exc, Terminated) else INTERRUPTED
    except Exception as exc:
        _complain(exc, "--debug" in words)
        return REFUSED


def _done(args: argparse.Namespace) -> int:
    session = verbs.open_session(args)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a job type prints is not the output
            found = verbs.VERBS[args.verb](session, args)
        return _exit_code(found, args.verb) if _printed(output.lines(found, session, args)) else UNREAD
    finally:
        session.close()
        for run in list(session._engine.runs.values()):
            if run.interrupted:
                verbs.tell(f"Job {run.job_id[:8]} was put back.\nNext: {verbs.command(args, 'resume', run.row)}")


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
    if verb == "status" or hasattr(found, "columns"):
        return COMPLETED
    if hasattr(found, "exit_status"):
        return NOT_COMPLETED if found.exit_status else COMPLETED
    if verb == "debug":
        return COMPLETED if isinstance(found, dict) and found.get("success") is True else NOT_COMPLETED
    jobs = found if isinstance(found, list) else [found]
    if any(job.status != ("cancelled" if verb == "cancel" else "completed") for job in jobs):
        return NOT_COMPLETED
    return WITH_ERRORS if any(job.with_errors for job in jobs) else COMPLETED


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    verbs.tell(f"warning: {getattr(message, 'in_terminal', '') or message}")


def _complain(exc: Exception, debug: bool) -> None:
    if debug:
        print(safe("".join(traceback.format_exception(exc))), file=sys.stderr)
    message = str(exc)
    if isinstance(exc, GeoflowError):
        message = exc.in_terminal or message
    else:
        from geoflow.notebook.failures import place

        where = place("".join(traceback.format_tb(exc.__traceback__)))
        message = f"{type(exc).__name__}: {message} ({where}). --debug shows the traceback."
    verbs.tell(f"error: {message}")
