"""JupyterLab and Debian's Chromium, with nothing of the user's own settings, and a notebook that is driven in them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import nbformat

import geoflow as gf
from tests.helpers.sessions import ROOT
from tests.helpers.waiting import wait_until

SECONDS = 30.0  # what is waited for at most
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",  # a question about it would cover the corner of the page
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # what is out of sight is on the page too
}
DISABLED = {"@jupyterlab/debugger-extension": True}  # it complains of kernels that end soon
OPTIONS = {
    "ServerApp.ip": "127.0.0.1",
    "ServerApp.port": "0",
    "IdentityProvider.token": "",
    "LabApp.expose_app_in_browser": "True",
    "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "LabApp.extension_manager": "readonly",
}
FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with one
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no network
]
Cell = Any  # playwright's Locator, which not everybody has
KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"


def missing() -> str | None:
    """What is not installed here of that which a notebook in a browser needs."""
    modules = [name for name in ("playwright", "jupyterlab") if util.find_spec(name) is None]
    if modules:
        return f"{' and '.join(modules)} missing: pip install -e '.[browser]'"
    return None if chromium_path() else "chromium is missing: apt-get install chromium"


def chromium_path() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def jupyter(folder: Path) -> Iterator[tuple[str, Path]]:
    """A server with nothing but what is in *folder*: its address, and where its notebooks are."""
    places = {name: folder / name.lower() for name in ("CONFIG", "DATA", "RUNTIME", "SETTINGS", "WORKSPACES")}
    for place in (*places.values(), folder / "app", folder / "notebooks"):
        place.mkdir(parents=True)
    (folder / "app" / "overrides.json").write_text(json.dumps(SETTINGS))
    (places["CONFIG"] / "labconfig").mkdir()
    (places["CONFIG"] / "labconfig" / "page_config.json").write_text(json.dumps({"disabledExtensions": DISABLED}))
    own = {f"JUPYTER_{name}_DIR": str(places[name]) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(places[name]) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    own["PYTHONPATH"] = os.pathsep.join((ROOT, str(Path(gf.__file__).parents[1])))
    options = OPTIONS | {"ServerApp.root_dir": folder / "notebooks", "LabApp.app_settings_dir": folder / "app"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True)
    try:
        found: list[str] = []
        wait_until(lambda: server.poll() is not None or _answers(places["RUNTIME"], found), SECONDS)
        assert server.poll() is None, (folder / "log").read_text()[-4000:]
        yield found[0], folder / "notebooks"
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _answers(runtime: Path, found: list[str]) -> bool:
    """Whether the server is there; its address, which it has chosen itself and written down, then is in *found*."""
    for file in runtime.glob("jpserver-*.json"):
        with contextlib.suppress(OSError, ValueError):
            url = json.loads(file.read_text())["url"]
            with urllib.request.urlopen(f"{url}api/status", timeout=2):
                found.append(url)
    return bool(found)


class Page:
    """A page of the browser, with all that went wrong on it and all that it asked of anybody but *own*."""

    def __init__(self, browser: Any, own: str, **options: Any) -> None:
        self.errors: list[str] = []
        self.external: list[str] = []
        self._own = (own, own.replace("http", "ws", 1), "data:", "blob:", "about:")
        self._context = browser.new_context(**options)
        self._context.set_default_timeout(SECONDS * 1000)
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))

    def close(self) -> None:
        self._context.close()

    def _asked(self, url: str) -> None:
        if not url.startswith(self._own):
            self.external.append(url)


class Lab(Page):
    """A page with JupyterLab, in which one notebook at a time is open, with a kernel of its own."""

    def __init__(self, browser: Any, url: str, folder: Path, width: int = 1100, height: int = 900) -> None:
        super().__init__(browser, url, viewport={"width": width, "height": height})
        self.folder = folder
        self._url = url
        self.is_fresh = False

    def _load(self) -> None:
        """Takes seconds; a notebook that is opened in a page that is there takes one."""
        self.page.goto(f"{self._url}lab?reset")
        self.page.wait_for_function("window.jupyterapp?.shell?.currentWidget")
        self.is_fresh = True

    def command(self, name: str, **arguments: Any) -> None:
        given = [name, arguments]
        self.page.evaluate("async ([name, given]) => { await jupyterapp.commands.execute(name, given) }", given)

    @contextlib.contextmanager
    def opened(self, name: str, like: Path | None = None) -> Iterator[None]:
        """Make the notebook *name*, empty or as another is, and have it open meanwhile."""
        self.file = self.folder / f"{name}.ipynb"
        if like is None:
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(nbformat.v4.new_notebook(metadata={"kernelspec": kernel}), self.file)
        else:
            shutil.copy(like, self.file)
        try:
            if not self.is_fresh:
                self._load()
            self.command("docmanager:open", path=self.file.name, factory="Notebook", kernel={"name": "python3"})
            self._until_ready()
            yield
            assert (self.errors, self.external) == ([], [])
            self._close_notebook()
        except BaseException:
            self.is_fresh = False
            self.errors.clear()
            raise

    def _close_notebook(self) -> None:
        """Close it, and have its kernel end by and by."""
        self.page.evaluate(
            """() => {
                const notebook = jupyterapp.shell.currentWidget
                jupyterapp.serviceManager.sessions.shutdown(notebook.sessionContext.session.id)
                notebook.context.model.dirty = false
                notebook.close()
            }"""
        )

    def _until_ready(self) -> None:
        # What the page itself shows of the kernel says idle too early.
        self.page.wait_for_function(f"{KERNEL}?.status === 'idle'")

    def run(self, source: str, *, wait: bool = True) -> Cell:
        """Run *source* in a new cell at the end, and *wait* until it has ended; the cell."""
        place = self.page.evaluate(
            """source => {
                const notebook = jupyterapp.shell.currentWidget.content
                const cells = notebook.model.sharedModel
                cells.insertCell(cells.cells.length, {cell_type: 'code', source})
                notebook.activeCellIndex = cells.cells.length - 1
                jupyterapp.commands.execute('notebook:run-cell')
                return notebook.activeCellIndex
            }""",
            source,
        )
        cell = self.page.locator(".jp-Notebook-cell").nth(place)
        if wait:
            self.until_run(cell)
        return cell

    def until_run(self, cell: Cell) -> None:
        cell.get_by_text(re.compile(r"^\[\d+\]:$")).first.wait_for()

    def is_running(self, cell: Cell) -> bool:
        return bool(cell.get_by_text("[*]:", exact=True).count())

    def reload(self) -> None:
        self.is_fresh = False
        self.page.reload()
        self._until_ready()

    def restart(self) -> None:
        """Restart the kernel, as one who knows that nothing of it is needed any more."""
        self.page.evaluate(f"async () => {{ await {KERNEL}.restart() }}")
        self._until_ready()


def button(cell: Cell, name: str) -> Any:
    return cell.get_by_role("button", name=name, exact=True)


def until(cell: Cell, words: str) -> None:
    """Wait until the cell shows *words*."""
    cell.get_by_text(words).first.wait_for()


def use(control: Any, how: str = "mouse") -> None:
    """Do what a click on *control* does, with the mouse or the keyboard."""
    if how == "mouse":
        control.click()
    else:
        control.focus()
        control.page.keyboard.press("Enter")
