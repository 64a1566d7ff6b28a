"""What is shown while something waits for a job: in real kernels, in saved notebooks, and in a terminal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import pytest

import geoflow as gf
from geoflow.notebook.progress import watching
from tests.helpers import jobs
from tests.helpers.drawn import text_of
from tests.helpers.sessions import ROOT, OpenSession
from tests.helpers.waiting import wait_until

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
client_module = pytest.importorskip("jupyter_client.manager")

WIDGET = "application/vnd.jupyter.widget-view+json"
SETUP = """
import sys; sys.path.insert(0, {root!r})
import geoflow as gf
from tests.helpers import jobs
session = gf.open({store!r}, workers=2, max_retries=0)
session.register(jobs)
nap = {{"do": "sleep", "value": 0.2}}
""".format


class Message(NamedTuple):
    kind: str
    content: Any
    parent: str


class Kernel:
    """A kernel, and all that it sent."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self._client = client
        self.sent: list[Message] = []

    def start(self, code: str) -> str:
        """Have a cell run; its id."""
        self.sent.clear()
        cell: str = self._client.execute(code)
        return cell

    def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        """Take in what is sent until *condition*; fail after *seconds*."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come true; last were {self.sent[-3:]}"
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except Empty:
                continue
            parent = message["parent_header"].get("msg_id", "")
            self.sent.append(Message(message["header"]["msg_type"], message["content"], parent))

    def is_idle(self, cell: str) -> bool:
        return any(
            message.kind == "status" and message.content["execution_state"] == "idle" and message.parent == cell
            for message in self.sent
        )

    def run(self, code: str) -> str:
        """Run a cell to its end; what it printed, and the name of what it raised."""
        cell = self.start(code)
        self.until(lambda: self.is_idle(cell))
        streams = [m.content["text"] for m in self.sent if m.kind == "stream"]
        return "".join(streams + [m.content["ename"] for m in self.sent if m.kind == "error"])

    def errors(self) -> list[str]:
        """The name of what the cell raised, and how it is shown."""
        errors = [message.content for message in self.sent if message.kind == "error"]
        return [" ".join((content["ename"], *content["traceback"])) for content in errors]

    def drawings(self) -> list[str]:
        """What the head of the live drawing said, each time that it was sent anew."""
        states = [m.content["data"].get("state", {}).get("value") for m in self.sent if m.kind == "comm_msg"]
        return [text_of(value) for value in states if isinstance(value, str) and "gf-badge" in value]

    def shown(self) -> list[dict[str, Any]]:
        """The outputs of the cell, as they are now."""
        found: dict[str, dict[str, Any]] = {}
        for message in self.displayed():
            found[message.content["transient"]["display_id"]] = message.content["data"]
        return list(found.values())

    def displayed(self) -> list[Message]:
        """What was sent of the outputs of the cell; others are of a cell before."""
        new = {m.content["transient"]["display_id"] for m in self.sent if m.kind == "display_data"}
        return [
            message
            for message in self.sent
            if message.kind.endswith("display_data") and message.content["transient"]["display_id"] in new
        ]

    def said(self) -> str:
        """What the first output says, when it is static."""
        data = self.shown()[0] if self.shown() else {}
        return "" if WIDGET in data else text_of(data.get("text/html", ""))

    def click(self, description: str) -> None:
        """Click on a button as JupyterLab does it: in a subshell."""
        (comm,) = [
            m.content["comm_id"]
            for m in self.sent
            if m.kind == "comm_open" and m.content["data"]["state"].get("description") == description
        ]
        content = {"comm_id": comm, "data": {"method": "custom", "content": {"event": "click"}}}
        message = self._client.session.msg("comm_msg", content)
        message["header"]["subshell_id"] = self._subshell()
        self._client.shell_channel.send(message)

    def _subshell(self) -> str:
        request = self._client.session.msg("create_subshell_request", {})
        self._client.control_channel.send(request)
        while True:
            reply = self._client.get_control_msg(timeout=10)
            if reply["header"]["msg_type"] == "create_subshell_reply":
                found: str = reply["content"]["subshell_id"]
                return found

    def has_subshells(self) -> bool:
        asked = self._client.kernel_info()
        while True:
            reply = self._client.get_shell_msg(timeout=10)
            if reply["parent_header"].get("msg_id") == asked:
                return "kernel subshells" in reply["content"].get("supported_features", ())


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    manager, client = client_module.start_new_kernel(kernel_name="python3")
    kernel = Kernel(manager, client)
    store = tmp_path_factory.mktemp("kernel") / "work.db"
    assert kernel.run(SETUP(root=ROOT, store=str(store))) == ""
    # An interrupt that comes within a first import may leave Python's own import lock held: all is imported now.
    kernel.run("_ = await session.submit('acts', tasks=[nap] * 4, number=0)")
    yield kernel
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_cell_that_waits_shows_the_job_live_and_leaves_its_end_as_html(kernel: Kernel) -> None:
    kernel.run("job = session.run('acts', tasks=[nap] * 12)")
    live = kernel.drawings()
    assert any(said.startswith("▸ processing acts") for said in live)
    assert len(set(live)) == len(live) > 1, "each is another"
    drawing, tools = kernel.shown()
    assert text_of(drawing["text/html"]).startswith("✓ completed acts")
    assert WIDGET not in drawing
    assert tools == {"text/html": "", "text/plain": ""}


def test_the_view_goes_on_after_its_cell_has_returned(kernel: Kernel) -> None:
    cell = kernel.start("job = session.submit('acts', tasks=[nap] * 12, number=2); job.watch()")
    kernel.until(lambda: kernel.is_idle(cell))
    assert not kernel.said().startswith("✓ completed")
    kernel.until(kernel.drawings)
    kernel.until(lambda: kernel.said().startswith("✓ completed acts"))
    assert {message.parent for message in kernel.displayed()} == {cell}, "they belong to the cell that shows the job"


def test_waiting_shows_the_job_and_an_interrupt_ends_the_waiting_only(kernel: Kernel) -> None:
    kernel.run("job = session.submit('acts', tasks=[nap] * 200, number=3)")
    cell = kernel.start("job.wait()")
    kernel.until(kernel.drawings)
    kernel.manager.interrupt_kernel()
    kernel.until(lambda: kernel.is_idle(cell))
    (told,) = kernel.errors()
    assert re.fullmatch(r"KeyboardInterrupt Interrupted\. Job \w{8} goes on: job\.cancel\(\) ends it\.", told)
    assert kernel.run("print(job.status); job.cancel()").startswith("processing")


def test_S38_an_interrupt_of_run_leaves_the_job_as_interrupted(kernel: Kernel) -> None:
    cell = kernel.start("session.run('acts', tasks=[nap] * 200, number=4)")
    kernel.until(kernel.drawings)
    kernel.manager.interrupt_kernel()
    kernel.until(lambda: kernel.is_idle(cell))
    assert kernel.said().startswith("‖ interrupted acts")
    (told,) = kernel.errors()
    shown = r'KeyboardInterrupt Interrupted\. Job (\w{8}) was put back\. Next: session\.job\("\1"\)\.resume\(\)'
    assert re.fullmatch(shown, told), "and no traceback"
    hint = r'Next: session\.job\("\w{8}"\)\.resume\(\)'
    assert re.search(hint, kernel.said()), "a handle that the cell would have assigned is not there"


def test_a_job_that_is_awaited_is_shown_live_and_leaves_the_loop_free(kernel: Kernel) -> None:
    said = kernel.run(
        """
import asyncio
async def tick():
    while True:
        ticks.append(1)
        await asyncio.sleep(0.02)
ticks, ticking = [], asyncio.ensure_future(tick())
job = await session.submit('acts', tasks=[nap] * 12, number=5)
ticking.cancel()
print(job.status, len(ticks) > 10)
"""
    )
    assert said == "completed True\n"
    assert any(drawing.startswith("▸ processing acts") for drawing in kernel.drawings())
    assert kernel.said().startswith("✓ completed acts")


def test_an_interrupt_of_awaiting_ends_the_waiting_only(kernel: Kernel) -> None:
    cell = kernel.start("job = session.submit('acts', tasks=[nap] * 200, number=6)\nawait job")
    kernel.until(kernel.drawings)
    kernel.manager.interrupt_kernel()
    kernel.until(lambda: kernel.is_idle(cell))
    (error,) = [message.content["ename"] for message in kernel.sent if message.kind == "error"]
    assert error in ("CancelledError", "KeyboardInterrupt")
    assert kernel.run("print(job.status); job.cancel()").startswith("processing")


def test_a_click_on_cancel_is_heard_while_the_cell_waits(kernel: Kernel) -> None:
    if not kernel.has_subshells():
        pytest.skip("this kernel hears of a click when the cell has ended")
    cell = kernel.start("job = session.run('acts', tasks=[nap] * 200, number=7)")
    kernel.until(lambda: len(kernel.drawings()) > 1)
    kernel.click("Cancel")
    kernel.until(lambda: kernel.is_idle(cell) and kernel.said().startswith("⊘ cancelled acts"))


def test_what_widgets_send_belongs_to_no_cell_and_what_is_displayed_to_its_own(kernel: Kernel) -> None:
    cell = kernel.start("session.run('acts', tasks=[nap] * 12, number=8);")
    kernel.until(lambda: kernel.is_idle(cell))
    assert {message.parent for message in kernel.displayed()} == {cell}
    if kernel.has_subshells():
        assert {message.parent for message in kernel.sent if message.kind.startswith("comm_")} == {""}


def test_a_saved_notebook_has_the_end_state_as_html(tmp_path: Path) -> None:
    cells = [
        SETUP(root=ROOT, store=str(tmp_path / "work.db")),
        "session.run('acts', tasks=[nap] * 6);",
        "later = session.submit('acts', tasks=[nap] * 30, number=2); later.watch()",
        "later.wait();",  # long enough that there is something to wait for when this cell comes
        "mended = {'do': 'raise', 'value': 'ValueError', 'until_attempt': 2, 'then': ('sleep', 3)};"
        "job = session.run('acts', tasks=[nap, mended]);",
        "job.retry_failed().wait();",
        "session",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    nbformat.validate(notebook)
    drawings = [cell.outputs[0]["data"] for cell in notebook.cells[1:]]
    assert [text_of(data["text/html"]).split(" acts")[0] for data in drawings[:5]] == [
        "✓ completed",
        "✓ completed",  # its cell had returned long before
        "✓ completed",
        "✗ failed",  # and so it stays, though the job did not
        "✓ completed",
    ]
    assert not any(WIDGET in data for data in drawings)
    assert "Jobs in" in drawings[5]["text/html"]
    assert text_of(drawings[5]["text/html"]).count("acts") == 3


# In a terminal


def test_a_terminal_has_a_line_for_each_stage(open_session: OpenSession, capsys: pytest.CaptureFixture[str]) -> None:
    job = open_session().run("two_acts", tasks=[{}] * 3)
    with watching(job.runtime, job.id, "text") as refresh:
        refresh()
    lines = [line.split() for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [(line[:2], "3/3" in line) for line in lines[-2:]] == [(["1", "act"], True), (["2", "again"], True)]


def test_no_frame_in_a_terminal_has_a_total_before_the_stage_has_one(
    open_session: OpenSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = open_session().run("two_acts", tasks=[{}] * 3)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal, all frames are drawn
    with watching(job.runtime, job.id, "text"):
        pass
    assert {*re.findall(r"\d+/\S+", re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err))} == {"3/3"}


def test_a_terminals_line_says_that_a_task_waits_for_its_retry_and_alone_is_cut_for_that(
    open_session: OpenSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(retry=gf.RetryPolicy(base_delay=600, max_delay=600))
    job = session.submit("acts", tasks=[{}, {"do": "fail"}, {"do": "fail"}])
    wait_until(lambda: job.runtime.snapshot(job.id).stages[0].waiting == 2)
    for width, note in (("80", "2 wait for their retries"), ("50", "2 wait for the…")):
        monkeypatch.setenv("COLUMNS", width)
        with watching(job.runtime, job.id, "text"):
            pass
        line = capsys.readouterr().err.splitlines()[-1]
        assert "━━━━━            1/3 0:00:0" in line
        assert line.rstrip().endswith(note)
    job.cancel()


def test_S38_an_interrupt_of_run_outside_of_a_notebook_says_how_to_go_on_and_that_works(tmp_path: Path) -> None:
    for display in ("text", "auto", "none"):
        session = gf.open(tmp_path / f"{display}.db", workers=0, display=display)
        session.register(jobs)
        tasks = [{"do": "raise", "value": "KeyboardInterrupt", "until_attempt": 2}]
        with pytest.raises(KeyboardInterrupt) as interrupt:
            session.run("acts", tasks=tasks)
        notes = getattr(interrupt.value, "__notes__", [])
        if display == "none":
            assert notes == []
        else:
            (command,) = re.findall(r"^Job \w{8} was put back\. Next: (session\.job.*\.resume\(\))$", "".join(notes))
            assert eval(command, {"session": session}).wait().status == "completed"
        session.close()


def test_what_is_no_terminal_is_left_alone(open_session: OpenSession, capsys: pytest.CaptureFixture[str]) -> None:
    job = open_session().run("acts", tasks=[{}])
    assert not sys.stderr.isatty()
    for how in ("auto", "none"):
        with watching(job.runtime, job.id, how) as refresh:
            refresh()
    assert capsys.readouterr() == ("", "")
