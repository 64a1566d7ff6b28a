"""Write the test of an exported module, with what a run was given and made. It needs the module alone."""

from __future__ import annotations

from collections import Counter

from geoflow.jobtypes.inputs import SAVED
from geoflow.support.masking import mask
from geoflow.tools.export.layout import literal
from geoflow.tools.export.proof import RecordedCall

LONGEST = 20_000  # characters of a call that is written down
TASKS = 3  # of each stage

_TEST = '''"""What {name} made of a run that was recorded: the same ids, the same results."""

from {package}{name} import ALL_HANDLERS, ALL_JOBS

JOB = ALL_JOBS["{name}"]
# fmt: off
CALLS = [
{calls}]
# fmt: on


def test_every_stage_has_a_handler():
    assert {{stage["task_type"] for stage in JOB.stages}} == ALL_HANDLERS.keys()


def test_what_was_made_is_made_again():
    for function, arguments, expected in CALLS:
        assert function(*arguments) == expected
'''
_CALL = """\
    (
        {function},
        {arguments},
        {was},
    ),
"""


def test_text(name: str, package: str, calls: list[RecordedCall], notes: list[str]) -> str:
    """The test's text. What is too long to be read, or holds a secret, is left out and told in *notes*."""
    if mask(calls) != calls:
        notes.append("the test has no recorded values, since some look like secrets.")
        calls = []
    text, times, too_long, saved = "", Counter[str](), set[str](), set[str]()
    for call in calls:
        function = f'ALL_HANDLERS["{call.function}"]' if call.kind == "results" else f"JOB.{call.function}"
        times[function] += 1
        if call.kind in ("job id", "task ids") or (call.kind == "results" and times[function] <= TASKS):
            arguments, was = literal(call.arguments, 8), literal(call.was, 8)
            if call.kind == "results" and SAVED in arguments + was:
                saved.add(function)
            elif len(arguments + was) > LONGEST:
                too_long.add(function)
            else:
                text += _CALL.format(function=function, arguments=arguments, was=was)
    if too_long:
        notes.append(f"the test leaves out calls of {', '.join(sorted(too_long))} that are too long to read.")
    if saved:
        notes.append(f"the test leaves out calls of {', '.join(sorted(saved))}, which save or load files.")
    return _TEST.format(name=name, package=package, calls=text)
