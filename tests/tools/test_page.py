"""A job as a page: one file that shows all there is to see, masked, and does nothing by itself."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import ParameterError
from geoflow.support.environment import environment, sound
from tests.helpers.drawn import checked
from tests.helpers.sessions import OpenSession
from tests.helpers.stored import NASTY, new_job

BOX = {"bbox": [10.0, 45.0, 11.0, 46.0]}
FAILS: dict[str, Any] = {"do": "raise", "value": "ValueError"}


class Page:
    """What stands in a page, whose body has only what does nothing."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text("utf-8")
        self.head, _, body = self.text.partition("<body>")
        self.shown = " ".join(" ".join(checked(body.partition("</body>")[0]).text).split())


@pytest.fixture
def session(open_session: OpenSession, tmp_path: Path) -> gf.Session:
    return open_session(tmp_path / "work.db", workers=0, max_retries=0)


def test_S66_a_page_has_all_there_is_to_see_and_does_nothing(session: gf.Session, tmp_path: Path) -> None:
    tasks = [{"do": "say", "value": "hello", **BOX}, {**FAILS, **BOX, "token": "hunter2"}]
    job = session.run("acts", tasks=tasks, api_key="hunter2")
    page = Page(job.save(tmp_path / "job.html"))
    assert "default-src 'none'" in page.head
    assert "<script" not in page.head
    assert "://" not in page.text
    assert "hunter2" not in page.text
    for told in (
        f"✗ failed acts {job.id[:8]}",
        "ValueError: a ValueError on purpose",
        "Timeline of acts",
        "Durations of acts",
        "Map of acts",
        "Tasks: 2 tasks, those that failed first",
        "logged: hello",
        "started",
        f"Python {environment()['Python']}",
        f"geoflow {gf.__version__}",
        f"numpy {environment()['numpy']}",
        "are masked",
    ):
        assert told in page.shown
    assert page.shown.index("s1-t1 1 act ✗ failed") < page.shown.index("s1-t0 1 act ✓ completed")


def test_S66_what_does_not_fit_on_a_page_is_said(session: gf.Session, tmp_path: Path) -> None:
    job = session.run("acts", tasks=[{}] * 4 + [FAILS])
    page = Page(job.save(tmp_path / "job.html", tasks=2, lines=1))
    assert "Tasks: 2 of 5 tasks, those that failed first" in page.shown
    assert "s1-t4" in page.shown
    assert f"Log lines: the last 1 of {len(job.logs())}" in page.shown
    bare = Page(job.save(tmp_path / "bare.html", tasks=0, lines=0))
    assert "Tasks: 0 of 5 tasks" in bare.shown


def test_S45_no_text_of_a_job_is_more_than_text_on_its_page(session: gf.Session, tmp_path: Path) -> None:
    job = session.run("acts", tasks=[{"do": "fail", "value": {"error": nasty}} for nasty in NASTY])
    page = Page(job.save(tmp_path / "job.html"))
    assert "alert('x')" in page.shown


def test_S66_a_page_of_a_job_that_has_not_ended_shows_that_moment(session: gf.Session, tmp_path: Path) -> None:
    row, _ = session.store.create(new_job())
    page = Page(session.job(row.job_id).save(tmp_path / "job.html"))
    assert page.shown.startswith(f"○ queued tiles {row.job_id[:8]}")
    assert "Tasks: 0 tasks" in page.shown
    assert "What it ran with was not recorded" in page.shown


def test_S66_no_page_is_written_over_another_or_half(
    session: gf.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, path = session.run("acts", tasks=[{}]), tmp_path / "job.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="is there already: give another name, or overwrite=True"):
        job.save(path)
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere to write job.html to"):
        job.save(tmp_path / "nowhere" / "job.html")
    with pytest.raises(ParameterError, match=re.escape("give one that ends in .html")):
        job.save(tmp_path / "job.pdf")
    with pytest.raises(ParameterError, match="tasks cannot be -1: give a whole number from 0 on"):
        job.save(tmp_path / "other.html", tasks=-1)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        job.save(path, overwrite=True)
    assert path.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir() if "html" in each.name) == ["job.html"]


# What it ran with


def test_S66_what_a_job_ran_with_is_recorded_when_it_runs(
    session: gf.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", SimpleNamespace(__gdal_version__="3.9.9"))
    job = session.run("acts", tasks=[{}])
    monkeypatch.undo()
    assert "GDAL 3.9.9" in Page(job.save(tmp_path / "job.html")).shown


@pytest.mark.parametrize("owner", ["[]", "{", '{"ran_with": [1]}', '{"ran_with": {"a": 1}, "host": {}}', None])
def test_S43_a_row_that_says_anything_of_what_a_job_ran_with_is_read(
    session: gf.Session, tmp_path: Path, owner: str | None
) -> None:
    job = session.run("acts", tasks=[{}])
    with session.store._transaction() as connection:
        connection.execute("UPDATE job SET owner = ?", (owner,))
    assert "What it ran with was not recorded" in Page(job.save(tmp_path / "job.html")).shown


def test_S66_an_environment_is_names_and_versions() -> None:
    told = environment()
    assert sound(json.loads(json.dumps(told))) == told
    assert {"Python", "system", "geoflow", "pydantic", "cloudpickle"} <= told.keys()
    assert sound({"a": "x" * 1000, "b": 1})["a"] == "x" * 100
