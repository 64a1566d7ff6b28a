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
        said = cell.get_by_text(re.compile(r"^\D*\d+ completed"))
        return int("".join(filter(str.isdigit, said.first.inner_text()))) if said.count() else 0

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
    until(cell, "3 completed")
    button(cell, "Retry failed").wait_for(state="hidden")
    assert "[2, 1, 1]" in notebook.run("job.tasks().attempts.tolist()").inner_text()


@by_mouse_and_keyboard
def test_a_group_of_errors_opens_and_stays_open_while_the_job_goes_on(notebook: Lab, how: str) -> None:
    cell = notebook.run(f"job = session.submit('acts', tasks={TWO_KINDS} + {SLOW})\njob.watch()")
    until(cell, "Errors: 3 failed tasks in 2 groups")
    traceback = cell.get_by_text("raise errors[name]")
    assert [shown.is_visible() for shown in traceback.all()] == [True, False], "the first group is open"
    use(cell.get_by_text("a OSError on purpose").first, how)
    traceback.nth(1).wait_for()
    until_it_moves(cell)
    assert traceback.nth(1).is_visible()
    assert "s1-t2" in cell.inner_text()


@by_mouse_and_keyboard
def test_a_task_that_is_selected_is_shown_with_all_about_it(notebook: Lab, how: str) -> None:
    cell = notebook.run(f"job = session.run('acts', tasks={TWO_KINDS} + [{{'do': 'say', 'value': 'hello'}}])")
    use(button(cell, "Tasks"), how)
    tasks = cell.get_by_role("listbox", name="Tasks:")
    tasks.get_by_text("✗ failed · s1-t0 · stage 1 · ValueError").wait_for()
    if how == "mouse":
        tasks.get_by_text("s1-t3").click()
    else:
        cell.get_by_label("Find:").focus()
        notebook.page.keyboard.type("t3\n")
        tasks.get_by_text("s1-t0").wait_for(state="detached")
        assert tasks.get_by_role("option").all_text_contents() == ["✓\xa0completed\xa0·\xa0s1-t3\xa0·\xa0stage\xa01"]
    cell.get_by_role("region", name="Task s1-t3: completed").wait_for()
    until(cell, "from native code")
