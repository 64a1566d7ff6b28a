"""The catalogue in `docs/reliability.md` names tests that exist, and all that were made for it."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.*?) \| (.*?) \|$", re.MULTILINE)


def rows() -> dict[int, tuple[str, list[str]]]:
    """What is expected of each case, and the tests that prove it."""
    text = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
    found = ROW.findall(text)
    assert len({number for number, *_ in found}) == len(found)
    return {int(number): (expected, re.findall(r"`(\w+)`", tests)) for number, _, expected, tests, _ in found}


def defined(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.rglob("test_*.py"):
        found.update(re.findall(r"^(?:def |class )?(test_\w+|Test\w+)\b", path.read_text("utf-8"), re.MULTILINE))
    return found


def test_every_test_that_the_catalogue_names_exists() -> None:
    named = {name for _, names in rows().values() for name in names}
    assert len(named) > 130
    assert named - defined(TESTS) == set()


def test_every_case_has_a_number_and_a_test_or_says_why_not() -> None:
    cases = rows()
    assert list(cases) == list(range(1, 131))
    reasons = ("not covered: ", "does not apply: ", "see [")
    unproven = {number for number, (_, names) in cases.items() if not names}
    assert {number for number in unproven if not cases[number][0].startswith(reasons)} == set()


def test_every_test_that_carries_a_cases_number_stands_in_its_row() -> None:
    cases = rows()
    for name in defined(TESTS / "faults"):
        for number in re.findall(r"F(\d\d\d)(?=_)", name):
            assert name in cases[int(number)][1], f"{name} belongs to case {number}"
