"""The live view of a job in JupyterLab: it moves, and its buttons and lists do what they say."""

from __future__ import annotations

import re

import pytest

from tests.browser.driving import Cell, Lab, button, until, use
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.browser
by_mouse_and_keyboard = pytest.mark.parametrize("how", ["mouse", "keyboard"])

SLOW = "[{'do': 'sleep', 'value': 0.1}] * 100"
# The first of these fails once in a session that does not retry, and is well the next time.
MENDED_LATER = "[{'do': 'raise', 'value': 'ValueError', 'until_attempt': 2}, {}, {}]"
TWO_KINDS = "[{'do': 'raise', 'value': name} for name in ('ValueError', 'ValueError', 'OSError')]"


def until_it_moves(cell: Cell) -> None:
    """Wait until some tasks have completed, and then some more."""

    def completed() -> int:
        said = cell.get_by_text(re.compile(r"^\d+/\d+( · |$)"))
        return int(said.first.inner_text().partition("/")[0]) if said.count() else 0

    wait_until(lambda: completed() > 0)
    before = completed()
    wait_until(lambda: completed() > before)


def test_the_view_moves_while_a_cell_runs_the_job(notebook: Lab) -> None:
    cell = notebook.run(f"job = session.run('acts', tasks={SLOW})", wait=False)
    until_it_moves(cell)
    assert notebook.is_running(cell)
    button(cell, "Cancel").wait_for()


def test_the_view_moves_after_its_cell_has_returned_and_while_another_waits(notebook: Lab) -> None:
    cell = notebook.run(f"job = session.submit('acts', tasks={SLOW})\njob.watch()")
    until_it_moves(cell)
    assert not notebook.is_running(cell)
    waiting = notebook.run("job.wait()", wait=False)
    until_it_moves(cell)
    until_it_moves(waiting)
    assert notebook.is_running(waiting)


def test_the_view_goes_on_after_the_page_was_loaded_again(notebook: Lab) -> None:
    cell = notebook.run(f"job = session.submit('acts', tasks={SLOW} * 4)\njob.watch()")
    button(cell, "Cancel").wait_for()
    notebook.command("docmanager:save")
    notebook.reload()
    until_it_moves(cell)
    use(button(cell, "Cancel"))
    until(cell, "⊘ cancelled")
    button(cell, "Resume").wait_for()


@pytest.mark.parametrize(
    ("how", "waits"),
    [
        ("mouse", "job = session.run('acts', tasks={})"),
        ("keyboard", "job = session.submit('acts', tasks={})\nawait job"),
    ],
    ids=["mouse-run", "keyboard-await"],
)
def test_cancel_ends_the_job_although_a_cell_waits_for_it_and_resume_goes_on(
    notebook: Lab, how: str, waits: str
) -> None:
    cell = notebook.run(waits.format(SLOW), wait=False)
    use(button(cell, "Cancel"), how)
    until(cell, "⊘ cancelled")
    notebook.until_run(cell)
    assert "'cancelled'" in notebook.run("str(job.status)").inner_text()
    assert button(cell, "Cancel").count() == 0
    use(button(cell, "Resume"), how)
    until_it_moves(cell)
    use(button(cell, "Cancel"), how)
    button(cell, "Resume").wait_for()


@by_mouse_and_keyboard
def test_S37_retry_failed_runs_the_failed_tasks_alone_and_shows_it_in_its_place(notebook: Lab, how: str) -> None:
    cell = notebook.run(f"job = session.run('acts', tasks={MENDED_LATER})")
    until(cell, "1 failed")
    use(button(cell, "Retry failed"), how)
    until(cell, "3/3")
    button(cell, "Retry failed").wait_for(state="hidden")
    assert "[2, 1, 1]" in notebook.run("job.tasks().attempts.tolist()").inner_text()


@by_mouse_and_keyboard
def test_groups_of_errors_stay_as_they_were_opened_and_focus_where_it_was_while_their_numbers_grow(
    notebook: Lab, how: str
) -> None:
    one_after_the_other = f"({TWO_KINDS} + ({SLOW})[:20]) * 6"
    cell = notebook.run(f"job = session.submit('acts', tasks={one_after_the_other})\njob.watch()")
    groups = cell.locator("details:has(> .gf-body)")
    groups.nth(1).wait_for()
    tracebacks = groups.locator("pre[aria-label='Traceback']")
    assert [shown.is_visible() for shown in tracebacks.all()] == [True, False], "the first group is open"
    for group in (0, 1):
        use(groups.nth(group).locator("> summary"), how)
    tracebacks.nth(1).wait_for()
    before, place = notebook.page.evaluate("() => document.activeElement.innerText"), groups.nth(1).bounding_box()
    numbers = cell.locator(".gf-count")
    said = numbers.nth(1).inner_text()
    wait_until(lambda: numbers.nth(1).inner_text() not in ("", said))
    assert [shown.is_visible() for shown in tracebacks.all()] == [False, True]
    assert notebook.page.evaluate("() => document.activeElement.innerText") == before
    assert "a OSError on purpose" in before
    assert groups.nth(1).bounding_box() == place, "nothing has moved"
    use(button(cell, "Cancel"))


@by_mouse_and_keyboard
def test_a_task_that_is_selected_is_shown_with_all_about_it(notebook: Lab, how: str) -> None:
    cell = notebook.run(f"job = session.run('acts', tasks={TWO_KINDS} + [{{'do': 'say', 'value': 'hello'}}])")
    use(button(cell, "Tasks"), how)
    row = re.compile(r"✗ failed +s1-t0 +stage 1 +\d+ ms +ValueError")
    cell.get_by_role("button", name=row).wait_for()
    if how == "mouse":
        cell.get_by_role("button", name=re.compile("1 OSError")).click()
        cell.get_by_role("button", name=row).wait_for(state="hidden")
        cell.get_by_role("button", name=re.compile("1 completed")).click()
        cell.get_by_role("button", name=re.compile("✓ completed +s1-t3")).click()
    else:
        cell.get_by_label("Find:").focus()
        notebook.page.keyboard.type("t3\n")
        cell.get_by_role("button", name=row).wait_for(state="hidden")
        until(cell, "1 to 1 of 1")
    cell.get_by_role("region", name="Task s1-t3: completed").wait_for()
    until(cell, "from native code")
