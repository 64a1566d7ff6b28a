"""What a task leaves behind in its process, and what the next task there finds of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import OpenSession, rows, wait_until


def test_what_each_task_prints_is_its_own_though_the_file_is_cut_short_between_them(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    say, much = {"do": "say", "value": "hello"}, {"do": "print much", "value": 3}
    session.run("acts", tasks=[say, much, say, much, say])
    outputs = [output for (output,) in rows(session, "SELECT output FROM attempts ORDER BY task_id")]
    assert [output for output in outputs if len(output) < 1000] == ["hello\non stderr\nfrom native code\n"] * 3
    assert all("more bytes" in output and "hello" not in output for output in outputs if len(output) > 1000)


def test_the_file_that_prints_go_to_is_not_cut_short_for_each_of_them(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    session.run("acts", tasks=[{"do": "say", "value": "hello"}] * 3)
    (file,) = Path(session._engine.executor.where() or "").glob("*.out")
    assert file.stat().st_size >= 3 * len("hello\non stderr\nfrom native code\n")


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_S22_what_a_task_printed_before_it_was_stopped_is_kept(
    open_session: OpenSession, tmp_path: Path, end: str
) -> None:
    session, begun = open_session(workers=1), tmp_path / "begun"
    tasks = [{"do": "say", "value": "first"}, {"do": "say then hang", "value": [str(begun), "second"]}]
    job = session.submit("acts", tasks=tasks)
    wait_until(begun.exists)
    job.cancel() if end == "cancel" else session.close()
    found = rows(open_session(workers=1), "SELECT outcome, output FROM attempts WHERE task_id = 's1-t1'")
    assert found == [("cancelled" if end == "cancel" else "interrupted", "second\n")]
