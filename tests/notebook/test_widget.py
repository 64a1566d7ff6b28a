"""The live view of a job: what its widgets are, what becomes of clicks, what a saved notebook keeps."""

from __future__ import annotations

import asyncio
import gc
import importlib
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.notebook import monitor as monitors
from geoflow.notebook import outputs
from geoflow.notebook.monitor import Monitor, monitor_of
from geoflow.notebook.task_table import TaskTable
from geoflow.notebook.widget import Panel
from geoflow.render.drawing import task_html
from geoflow.stores.task_lists import Wanted
from geoflow.views.model import ACTIONS, Listing, TaskLine, TaskView
from tests.helpers import jobs
from tests.helpers.drawn import HOSTILE, a_view, checked, text_of
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until

WIDGET = "application/vnd.jupyter.widget-view+json"
# Fails at its first attempt in a session that does not retry, and is well the next time.
MENDED_LATER = {"do": "raise", "value": "ValueError", "until_attempt": 2}
# A list of tasks that take as long as a look at the live view needs.
LONG = [{"do": "sleep", "value": 0.2}] * 300


class Page:
    """What a notebook would show: the outputs of its cells in order, each as it was last updated."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    @property
    def outputs(self) -> list[dict[str, Any]]:
        shown: dict[str, dict[str, Any]] = {}
        for message in list(self._shell.display_pub.outputs):
            name = message["transient"]["display_id"]
            if name in shown or not message["update"]:  # others are of a test before this one
                shown[name] = message["data"]
        return list(shown.values())

    @property
    def drawing(self) -> dict[str, Any]:
        """The first of the last view's two outputs."""
        return self.outputs[-2]

    @property
    def tools(self) -> dict[str, Any]:
        return self.outputs[-1]

    def next_cell(self) -> None:
        self._shell.execution_count += 1


@pytest.fixture
def page() -> Iterator[Page]:
    """A notebook in this process: IPython's own shell, whose outputs are kept instead of sent."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.display_pub = CapturingDisplayPublisher()
    shell.__dict__["kernel"] = None  # what tells a notebook from IPython in a terminal
    yield Page(shell)
    InteractiveShell.clear_instance()


@pytest.fixture
def open_notebook(page: Page, tmp_path: Path) -> Iterator[OpenSession]:
    """Sessions that draw, as those of a notebook do, and do not retry."""

    def open_one(**options: Any) -> gf.Session:
        session = gf.open(tmp_path / "work.db", **{"workers": 2, "max_retries": 0, **options})
        session.register(jobs)
        opened.append(session)
        return session

    opened: list[gf.Session] = []
    yield open_one
    for session in opened:
        session.close()


def shown(panel: Panel) -> list[str]:
    """The buttons that can be seen."""
    return [name for name, button in panel.buttons.items() if button.layout.display != "none"]


def _said(page: Page) -> str:
    return text_of(page.drawing["text/html"])


def panel_of(job: gf.JobHandle) -> Panel:
    wait_until(lambda: monitor_of(job.runtime, job.id).panel is not None)
    panel = monitor_of(job.runtime, job.id).panel
    assert panel is not None
    return panel


def wait_for_rest(job: gf.JobHandle) -> None:
    wait_until(lambda: not monitor_of(job.runtime, job.id)._following)


def a_panel(act: Callable[[str], None] = lambda name: None, browse: Callable[[], None] = lambda: None) -> Panel:
    return Panel(act, browse)


# The widgets


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        ({"status": "processing", "driver": "process 1"}, ["cancel"]),
        ({"status": "failed", "driver": "process 1"}, ["cancel"]),
        ({"status": "failed", "driver": None}, ["retry_failed", "resume"]),
        ({"status": "failed", "driver": None, "stages": ()}, ["resume"]),
        ({"status": "cancelled", "driver": None}, ["retry_failed", "resume"]),
        ({"status": "cancelled", "driver": None, "stages": ()}, ["resume"]),
        ({"status": "processing", "driver": None}, ["resume", "cancel"]),
        ({"status": "completed", "driver": None, "with_errors": True, "stages": ()}, ["refinalize"]),
        ({"status": "completed", "driver": None, "with_errors": True}, ["retry_failed"]),
        ({"status": "completed", "driver": None, "stages": ()}, []),
        ({"status": "completed", "driver": None, "stages": (), "stale": 3}, ["rerun_stale"]),
        ({"status": "cancelled", "driver": None, "stages": (), "stale": 3}, ["resume"]),
    ],
)
def test_each_button_is_there_only_where_it_applies(state: dict[str, Any], buttons: list[str]) -> None:
    panel = a_panel()
    panel.draw(a_view("x", **state))
    assert shown(panel) == buttons
    panel.close()


def test_a_view_that_has_not_changed_is_not_sent_again() -> None:
    changes: list[Any] = []
    panel = a_panel()
    panel.draw(a_view("x"))
    for widget in (panel.root, *panel.root.children):
        widget.observe(changes.append)
    panel.draw(a_view("x"))
    assert changes == []
    panel.draw(a_view("x", elapsed=60.0))
    assert [change["name"] for change in changes] == ["value"], "what is below the stages stays as it is"
    panel.close()


def test_the_controls_can_be_used_and_read_without_a_mouse() -> None:
    panel = a_panel()
    assert {button.description for button in panel.buttons.values()} == {words for words, _ in ACTIONS.values()}
    assert (panel.table.part.description, panel.table.order.description) == ("Find:", "Order:")
    panel.say("it did not work")
    assert 'role="alert"' in panel._said.value
    panel.close()


def said_by(table: TaskTable) -> list[str]:
    """The rows that can be seen."""
    return [row.description.strip() for row in table.rows if row.layout.display != "none"]


def test_the_task_that_is_chosen_stays_so_when_the_list_changes_and_its_row_is_the_same_widget() -> None:
    chosen: list[int | None] = []
    panel = a_panel(browse=lambda: chosen.append(table.chosen))
    table = panel.table
    lines = tuple(TaskLine(key, f"t-{key}", f"t-{key} is queued") for key in range(1, 4))
    table.fill(Listing(lines, 3, ()), {"queued": 3})
    rows = list(table.rows)
    table.rows[1].click()
    assert chosen == [2]
    table.fill(Listing(lines[::-1], 3, ()), {"queued": 3})
    assert said_by(table) == ["t-3 is queued", "▾ t-2 is queued", "t-1 is queued"]
    table.fill(Listing(lines[2:], 1, ()), {"queued": 1})
    assert (said_by(table), table.chosen, table.rows) == (["t-3 is queued"], 2, rows)
    table.fill(Listing(lines, 3, ()), {"queued": 3})
    table.rows[1].click()
    assert chosen == [2, None], "a second click closes it"
    panel.close()


def test_of_the_chips_one_is_on_at_most_and_they_stay_where_they_are() -> None:
    asked: list[Wanted] = []
    panel = a_panel(browse=lambda: asked.append(table.wanted))
    table = panel.table
    table.fill(Listing((), 0, (("OSError", 2), ("KeyError", 1))), {"failed": 3, "completed": 9})
    chips = [chip for chip in (*table.states.values(), *table.kinds) if chip.layout.display != "none"]
    assert [chip.description for chip in chips] == ["✗ 3 failed", "✓ 9 completed", "2 OSError", "1 KeyError"]
    table.states["failed"].value = True
    table.kinds[1].value = True
    assert asked == [Wanted("failed"), Wanted("", "KeyError")]
    table.fill(Listing((), 0, (("KeyError", 1), ("ValueError", 5))), {"completed": 9})
    assert [chip.description for chip in table.kinds[:3]] == ["2 OSError", "1 KeyError", "5 ValueError"]
    assert [chip.layout.display for chip in table.kinds[:3]] == ["none", None, None]
    panel.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_S45_hostile_text_of_a_task_comes_out_as_the_text_that_it_is(text: str) -> None:
    details = tuple((title, text) for title in ("Parameters", "Result", "Traceback", "Whole traceback", "Log"))
    html = task_html(TaskView(text, "failed", (text,), text, text, details))
    assert sum(text in part for part in checked(html).text) == 9
    panel = a_panel()
    panel.say(text)
    assert text_of(panel._said.value) == text
    panel.close()


def test_a_panel_that_is_closed_leaves_no_widget_behind() -> None:
    widget: Any = importlib.import_module("ipywidgets.widgets.widget")
    before = set(widget._instances)
    panel = a_panel()
    assert set(widget._instances) > before
    panel.close()
    assert set(widget._instances) == before


# Jobs that end


def test_a_job_that_completes_leaves_static_html_and_nothing_else(open_notebook: OpenSession, page: Page) -> None:
    open_notebook().run("acts", tasks=[{"do": "sleep", "value": 0.2}] * 6)
    wait_until(lambda: all(WIDGET not in output for output in page.outputs))
    assert len(page.outputs) == 2
    assert text_of(page.drawing["text/html"]).startswith("✓ completed acts")
    assert page.drawing["text/plain"].startswith("✓  completed")
    assert page.tools == {"text/plain": "", "text/html": ""}


def test_a_job_that_ran_for_long_enough_leaves_its_pictures_folded_in_its_cell(
    open_notebook: OpenSession, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitors, "ENOUGH_TO_SEE", 0.05)
    open_notebook().run("acts", tasks=[{"do": "sleep", "value": 0.1}])
    html = page.drawing["text/html"]
    titles = [part.partition("<")[0] for part in html.split("<summary>")[1:]]
    assert titles == ["Timeline", "Durations", "Progress", "Memory"]
    monkeypatch.setattr(monitors, "ENOUGH_TO_SEE", 100)
    open_notebook().run("acts", tasks=[{}, {}])
    assert "<summary>Timeline" not in page.drawing["text/html"], "there is little to see of a short one"


def test_a_job_that_fails_leaves_static_html_and_buttons_below_it(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().run("acts", tasks=[{}, MENDED_LATER])
    assert WIDGET not in page.drawing
    assert "Errors: 1 failed task" in text_of(page.drawing["text/html"])
    wait_until(lambda: WIDGET in page.tools)
    panel = panel_of(job)
    assert page.tools[WIDGET]["model_id"] == panel.tools.model_id
    assert (page.tools["text/html"], page.tools["text/plain"]) == ("", ""), "what is left of it without its kernel"
    assert shown(panel) == ["retry_failed"]


def test_a_click_on_retry_failed_mends_the_job_in_the_same_outputs(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().run("acts", tasks=[{}, MENDED_LATER])
    panel_of(job).buttons["retry_failed"].click()
    job.wait()
    wait_until(lambda: _said(page).startswith("✓ completed"))
    assert len(page.outputs) == 2
    wait_until(lambda: page.tools == {"text/plain": "", "text/html": ""})
    assert job.attempts().attempt.tolist() == [1, 1, 2]


def test_a_click_on_cancel_ends_a_running_job_and_one_on_resume_goes_on(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().submit("acts", tasks=LONG)
    job.watch()
    panel = panel_of(job)
    wait_until(lambda: WIDGET in page.drawing)
    assert shown(panel) == ["cancel"]
    panel.buttons["cancel"].click()
    wait_until(lambda: "cancelled acts" in _said(page) and WIDGET not in page.drawing)
    assert job.status == "cancelled"
    wait_until(lambda: not panel.buttons["resume"].disabled and shown(panel) == ["resume"])
    panel.buttons["resume"].click()
    wait_until(lambda: WIDGET in page.drawing and job.status == "processing")
    job.cancel()


def test_S34_a_click_on_finalize_again_runs_the_finalize_of_now(open_notebook: OpenSession, page: Page) -> None:
    session = open_notebook()
    job = session.run("acts", tasks=[{}], finalize="raise")
    panel = panel_of(job)
    wait_until(lambda: shown(panel) == ["refinalize"])

    class Mended(jobs.Acts):
        finalize_job = staticmethod(lambda context=None: {"mended": len(context.task_results)})

    session.register(Mended, handlers=jobs.ALL_HANDLERS)
    panel.buttons["refinalize"].click()
    wait_until(lambda: "mended" in page.drawing["text/html"] and WIDGET not in page.drawing)
    assert job.result() == {"mended": 1}
    assert len(page.outputs) == 2


def test_what_is_stale_can_be_run_again_by_a_click_once_the_code_has_changed(
    open_notebook: OpenSession, page: Page
) -> None:
    session = open_notebook()
    job = session.run("acts", tasks=[{"value": 1}, {"value": 2}])

    def act(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"value": 10 * params["value"]}}

    session.register(jobs.Acts, handlers={**jobs.ALL_HANDLERS, "act": act})
    page.next_cell()
    job.watch()
    panel = panel_of(job)
    wait_until(lambda: shown(panel) == ["rerun_stale"])
    panel.buttons["rerun_stale"].click()
    wait_until(lambda: shown(panel) == [] and job.attempts().attempt.tolist() == [1, 2, 1, 2])
    assert job.stale == 0


def test_what_is_wrong_with_an_action_stands_in_one_line_and_the_button_can_be_used_again(
    open_notebook: OpenSession, tmp_path: Path
) -> None:
    open_notebook().run("acts", tasks=[MENDED_LATER])
    elsewhere = gf.open(tmp_path / "work.db", workers=1)
    job = elsewhere.job(str(elsewhere.jobs().job_id[0]))
    job.watch()
    panel = panel_of(job)
    panel.buttons["retry_failed"].click()
    wait_until(lambda: "not registered in this session" in panel._said.value)
    wait_until(lambda: not panel.buttons["retry_failed"].disabled)
    wait_until(lambda: shown(panel) == ["retry_failed"])  # it is drawn for the first time beside the click
    elsewhere.close()


def test_one_click_acts_once_however_often_it_comes(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().run("acts", tasks=[MENDED_LATER, {}])
    button = panel_of(job).buttons["retry_failed"]
    clicks = [threading.Thread(target=button.click) for _ in range(5)]
    for click in clicks:
        click.start()
    wait_until(lambda: "✓ completed" in _said(page))
    assert job.attempts().attempt.tolist() == [1, 2, 1]


# Tasks, one by one


def test_the_list_of_tasks_has_the_worst_first_and_shows_all_of_one(open_notebook: OpenSession, page: Page) -> None:
    loud = {"do": "say", "value": "password=hunter2", "api_key": "hunter3"}
    job = open_notebook(base_delay=0.0, max_retries=1).run("acts", tasks=[loud, {"do": "raise", "value": "OSError"}])
    panel = panel_of(job)
    panel.opener.value = True
    wait_until(lambda: len(said_by(panel.table)) == 2)
    failed = re.sub(r"\s+[\d.]+ m?s ", " ", said_by(panel.table)[0])
    assert " ".join(failed.split()) == "✗ failed s1-t1 stage 1 OSError: a OSError on purpose, after 1 retry"
    panel.table.rows[0].click()
    wait_until(lambda: "s1-t1" in panel.card.value)
    said = text_of(panel.card.value)
    for part in ("OSError: a OSError on purpose", "that of a missing file too", "waited 0 ms", "in _raise", '"do":'):
        assert part in said
    panel.table.rows[1].click()
    wait_until(lambda: "s1-t0" in panel.card.value)
    said = text_of(panel.card.value)
    for part in ("Result", "from native code", '"api_key": "***"', "users.own logged: password=***", "(attempt 1)"):
        assert part in said
    assert "hunter" not in said


def test_a_part_of_its_id_finds_a_task_among_more_than_are_listed(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().submit("acts", tasks=[{}] * 450)
    job.wait()
    job.watch()
    panel = panel_of(job)
    panel.opener.value = True
    table = panel.table
    wait_until(lambda: "1 to 20 of 450" in table.note.value)
    assert table.states["completed"].description == "✓ 450 completed"
    table.after.click()
    wait_until(lambda: "21 to 40 of 450" in table.note.value)
    table.part.value = "T449"
    wait_until(lambda: "1 to 1 of 1" in table.note.value)
    assert said_by(table)[0].startswith("▾ ✓ completed  s1-t449  stage 1")
    wait_until(lambda: "s1-t449" in panel.card.value)
    table.part.value = ""
    wait_until(lambda: "1 to 20 of 450" in table.note.value)


# What else may happen


def test_a_view_in_a_later_cell_leaves_the_earlier_one_as_it_was(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().run("acts", tasks=[MENDED_LATER])
    wait_until(lambda: WIDGET in page.tools)
    page.next_cell()
    job.watch()
    wait_until(lambda: len(page.outputs) == 4 and WIDGET in page.tools)
    panel_of(job).buttons["retry_failed"].click()
    wait_until(lambda: _said(page).startswith("✓ completed"))
    earlier, its_tools, *_ = page.outputs
    assert text_of(earlier["text/html"]).startswith("✗ failed")
    assert WIDGET not in its_tools


def test_the_job_is_not_drawn_twice_in_one_cell(open_notebook: OpenSession, page: Page) -> None:
    job = open_notebook().run("acts", tasks=[{}])
    assert "see above" in job._repr_html_()
    page.next_cell()
    assert "see above" not in job._repr_html_()
    assert "gf-stages" in job._repr_html_()


def test_without_ipywidgets_the_drawing_is_updated_all_the_same(
    open_notebook: OpenSession, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    job = open_notebook().submit("acts", tasks=LONG)
    job.watch()
    wait_until(lambda: "mean run" in page.drawing["text/html"])
    assert WIDGET not in page.drawing
    job.cancel()
    wait_until(lambda: "⊘ cancelled" in _said(page))
    assert page.tools == {"text/plain": "", "text/html": ""}


def test_a_fault_in_drawing_costs_the_widgets_and_never_touches_the_job(
    open_notebook: OpenSession, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Panel, "draw", lambda panel, view: 1 / 0)
    session = open_notebook()
    job = session.run("acts", tasks=[{"do": "sleep", "value": 0.3}] * 4)
    assert job.result()["completed"] == 4
    assert _said(page).startswith("✓ completed")
    assert "the job could not be drawn" in (session.settings.log_path or Path()).read_text()


def test_a_job_that_cannot_be_drawn_at_all_runs_to_its_end(
    open_notebook: OpenSession, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **named: object) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(outputs, "display", broken)
    assert open_notebook().run("acts", tasks=[{}]).result()["completed"] == 1
    assert page.outputs == []


def test_a_session_that_is_closed_is_not_opened_again_to_be_drawn(open_notebook: OpenSession, page: Page) -> None:
    session = open_notebook()
    job = session.submit("acts", tasks=LONG)
    job.watch()
    wait_until(lambda: WIDGET in page.drawing)
    session.close()
    wait_for_rest(job)
    assert "interrupted acts" in _said(page)
    assert "store" not in session.runtime.__dict__


def test_what_is_shown_does_not_keep_a_session_alive(page: Page, tmp_path: Path) -> None:
    session = gf.open(tmp_path / "work.db", workers=0, max_retries=0)
    session.register(jobs)
    job = session.run("acts", tasks=[MENDED_LATER])
    wait_until(lambda: WIDGET in page.tools)
    panel = panel_of(job)
    wait_for_rest(job)
    session.close()
    gone = weakref.ref(session)
    del session, job

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    wait_until(is_gone)
    panel.buttons["retry_failed"].click()
    wait_until(lambda: "The session of this view is gone" in panel._said.value)


def test_widgets_of_jobs_that_stopped_long_ago_are_let_go(
    open_notebook: OpenSession, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitors, "KEPT", 2)
    session = open_notebook(workers=0)
    made: list[Monitor] = []
    for number in range(4):
        page.next_cell()
        job = session.run("acts", tasks=[MENDED_LATER], number=number)
        panel_of(job)
        made.append(monitor_of(job.runtime, job.id))
    wait_until(lambda: sum(monitor.panel is not None for monitor in made) == 2)
    wait_until(lambda: sum(WIDGET in output for output in page.outputs) == 2)
    assert sum("✗ failed" in text_of(output["text/html"]) for output in page.outputs) == 4


def test_html_as_the_setting_says_has_no_widgets(open_notebook: OpenSession, page: Page) -> None:
    open_notebook(display="html").run("acts", tasks=[MENDED_LATER])
    assert "✗ failed" in _said(page)
    assert not any(WIDGET in output for output in page.outputs)


# Without a notebook


def test_where_there_is_no_notebook_watch_prints_the_job(open_session: OpenSession, capsys: Any) -> None:
    job = open_session().run("acts", tasks=[{}])
    job.watch()
    assert capsys.readouterr().out.startswith("✓  completed  acts")


def test_a_job_can_be_awaited_beside_others_and_is_not_ended_by_who_gives_up(open_session: OpenSession) -> None:
    session = open_session()

    async def both() -> list[Any]:
        quick, slow = session.submit("acts", tasks=[{}]), session.submit("acts", tasks=LONG)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, 0.3)
        return [await quick, slow.status]

    quick, status = asyncio.run(both())
    assert (quick.status, status) == ("completed", "processing")


@pytest.mark.parametrize("workers", [0, 2], ids=["inline", "processes"])
def test_an_awaited_job_is_driven_and_returned(open_session: OpenSession, workers: int) -> None:
    job = open_session(workers=workers).submit("acts", tasks=[{"value": 3}])

    async def waiting() -> gf.JobHandle:
        return await job

    assert asyncio.run(waiting()).result()["values"] == [3]
