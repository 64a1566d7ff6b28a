"""A bundle as it is looked at: as HTML, in a notebook and as the page in it, and in lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from geoflow.render import markup
from geoflow.render.markup import Html, block, element, faint, head, line, state, table, title
from geoflow.render.page import page
from geoflow.render.report import Entry, Table
from geoflow.support.text import count, first_lines, human_bytes, human_duration, last_lines, shorten
from geoflow.tools.bundle.told import SentAttempt, Told
from geoflow.views.model import SYMBOLS, WHOLE, laid_out
from geoflow.views.model import when as moment
from geoflow.views.tracebacks import NEWEST_FIRST, fold

_CELL, _VALUE, _LINES, _SHOWN = 300, 20_000, 200, 12
Files = Mapping[str, str]
Versions = Mapping[str, str]


def page_of(told: Told, files: Files) -> str:
    """All that there is, for who has no geoflow."""
    return page(told.name, [card(told, files, {})])


def card(told: Told, files: Files, here: Versions) -> Html:
    """All that there is; *here* are the versions of the one who looks, to be compared."""
    return element(told.name, _parts(told, files, here))


def _parts(told: Told, files: Files, here: Versions) -> Iterator[Html]:
    task, last = told.task, told.last
    badge = state(task.status, kind="gf-badge") if task.status in SYMBOLS else ""
    yield head(task.task_id, faint(" · ".join(facts(told))), badge=badge)
    if last is not None and last.error:
        yield line(f"{last.error_type}: {last.error}")
    if last is not None and last.traceback:
        short = fold(last.traceback)
        yield block("Traceback", short)
        yield block(WHOLE, last.traceback if short != last.traceback else None)
    yield from (line(faint(note)) for note in notes(told))
    yield block("Parameters", _json(told.parameters))
    if told.task.result is not None:
        yield block("Result", _json(told.task.result))
    if last is not None and last.output:
        yield block("What it printed last", last_lines(last.output, _LINES))
    if told.inputs.named:
        yield title("Files that its parameters name", 4)
        rows = ((each.name, shorten(each.text, 120), _sent(told, each.place, each.why)) for each in told.inputs.named)
        yield table(("Parameter", "Path", "Sent"), rows)
    for name, text in files.items():
        yield block(f"Code: {name}", text, folded=True)
    if told.code.source:
        yield block(f"Code of the handler that ran (version {told.code.ran})", told.code.source, folded=True)
    if len(told.attempts) > 1:
        yield title("Attempts", 4)
        yield table(("Attempt", "Outcome", "Error", "Time", "Memory"), map(_attempt, told.attempts))
    if told.lines:
        yield title("Log lines", 4)
        cells = [(_time(each.time), each.level or "", shorten(each.message, _CELL)) for each in told.lines]
        yield markup.told(("Time (UTC)", "Level", "Message"), cells, 1)
    if told.ran_with:
        yield title("Ran with", 4)
        names = dict.fromkeys((*told.ran_with, *here)) if here else told.ran_with
        heads = ("What", "There", "Here") if here else ("What", "Version")
        rows_ = ((name, told.ran_with.get(name, ""), *([here.get(name, "")] if here else [])) for name in names)
        yield table(heads, rows_)
    yield line(faint(f"Made at {told.made_at} with geoflow {told.geoflow}. What looks secret is not in it."))


def facts(told: Told) -> list[str]:
    """What the head says, beside the task's id."""
    task = told.task
    last, number = told.last, max(task.attempts, len(told.attempts))
    said = [f"{task.task_type} of {told.job.job_type} {told.job.job_id[:8]}", f"stage {task.stage} {task.stage_name}"]
    said += [count(number, "attempt")] if number else []
    said += [human_duration(last.duration)] if last is not None and last.duration is not None else []
    return [shorten(each, 100) for each in said]


def notes(told: Told) -> Iterator[str]:
    """What one has to know before believing it, or running it."""
    code = told.code
    if code.ran and code.now and code.ran != code.now:
        kept = ", whose text is there too" if code.source else ""
        yield f"The code is newer than the last attempt: it is version {code.now}, that ran with {code.ran}{kept}."
    if told.hidden:
        yield f"Not sent, since they look secret: the parameters {', '.join(told.hidden)}."
    if code.hidden:
        yield f"In the code *** stands for what looks secret: {', '.join(code.hidden)}."
    if code.why:
        yield f"It cannot be run elsewhere: {code.why}"


def parts(told: Told, files: Files, here: Versions) -> Iterator[str | Entry | Table]:
    """The same in short, for a terminal."""
    yield f"{told.task.status}: {', '.join(facts(told))}."
    last = told.last
    if last is not None and last.error:
        yield f"{last.error_type}: {last.error}"
    if last is not None and last.traceback:
        yield Entry("note", "raised", "", tuple(("", each) for each in shown_of(last.traceback)))
    yield from notes(told)
    yield f"Parameters: {shorten(json.dumps(told.parameters, ensure_ascii=False), 400)}"
    if last is not None and last.output:
        lines = last_lines(last.output, _SHOWN).splitlines()
        yield Entry("note", "printed", "", tuple(("", each) for each in lines))
    if told.inputs.named:
        rows = [(each.name, shorten(each.text, 50), _sent(told, each.place, each.why)) for each in told.inputs.named]
        yield [("parameter", "path", "sent"), *rows]
    if files:
        sizes = ", ".join(f"{name} ({count(len(text.splitlines()), 'line')})" for name, text in files.items())
        yield f"Code: {sizes}."
    elif told.code.source:
        yield "Code: that of the handler alone, as it ran, in bundle.source."
    differ = [
        (name, version, here.get(name, "not installed"))
        for name, version in told.ran_with.items()
        if here.get(name) != version
    ]
    if differ and here:
        yield "Versions that differ:"
        yield [("what", "there", "here"), *differ]


def shown_of(traceback: str) -> list[str]:
    """The lines of *traceback* that tell where it was raised: its last ones, the first ones of a stack."""
    lines = fold(traceback).splitlines()
    return lines[:_SHOWN] if NEWEST_FIRST in traceback else lines[-_SHOWN:]


def _attempt(each: SentAttempt) -> tuple[str, ...]:
    error = shorten(f"{each.error_type}: {each.error}", _CELL) if each.error else ""
    time = "" if each.duration is None else human_duration(each.duration)
    memory = "" if each.peak_memory is None else human_bytes(each.peak_memory)
    return str(each.attempt), each.outcome, error, time, memory


def _sent(told: Told, place: str | None, why: str | None) -> str:
    if place is None:
        return f"no: {why}"
    beside = f"{place.partition('/')[0]}/"  # what belongs to a file is there too
    sizes = [size for name, (size, _) in told.inputs.files.items() if name.startswith(beside)]
    return human_bytes(sum(sizes)) + (f" in {count(len(sizes), 'file')}" if len(sizes) > 1 else "")


def _json(value: Any) -> str:
    return first_lines(laid_out(value, 100), characters=_VALUE, rest="; task.json has all")


def _time(at: float | None) -> str:
    try:
        return "" if at is None else moment(at).removesuffix(" UTC")
    except (ValueError, OverflowError, OSError):  # of no clock
        return ""
