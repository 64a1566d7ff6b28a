"""S45 in a real page: nothing that a job, its files or its errors say is ever run by the notebook that shows it."""

from __future__ import annotations

import re

import pytest

from tests.browser.driving import Lab, button, until, use

pytestmark = pytest.mark.browser

HOSTILE = """
import logging
X = '''"'><img src=x onerror="window.__xss = 1"><script>window.__xss = 1</script></pre></style>'''
Odd = type("Odd" + X, (ValueError,), {})

def act(params):
    print(X)
    logging.getLogger(X).warning(X)
    if params["do"] == "raise":
        raise Odd(X)
    if params["do"] == "sleep":
        import time
        time.sleep(60)
    return {"success": True, "result": {X: X}}

class Hostile(jobs.Acts):
    job_type = "hostile"
    description = X
    stages = [{"number": 1, "name": X, "task_type": "act", "parallelism": X}]
    parameters_schema = {"type": "object", "properties": {
        "tasks": {"title": X, "description": X}, "kind": {"enum": [X, X + "2"], "title": X, "default": X}}}

    @staticmethod
    def validate_job_parameters(params):
        if params.get("tasks") == 0:
            raise ValueError(X)
        return params

    @classmethod
    def create_tasks_for_stage(cls, stage, job_params, job_id, previous_results=None):
        return [{"task_id": f"{number}{X}"[:100], "task_type": "act", "parameters": {"do": do, X: X}}
            for number, do in enumerate(job_params["tasks"])]

session.register(Hostile, handlers={"act": act})
"""


def test_S45_what_looks_like_markup_is_shown_as_text_everywhere_and_none_of_it_runs(notebook: Lab) -> None:
    notebook.run(HOSTILE)
    live = notebook.run("job = session.submit(Hostile, tasks=['raise', 'ok', 'sleep'], **{X: X})\njob.watch()")
    until(live, "Errors: 1 failed task")
    use(button(live, "Tasks"))
    live.get_by_role("button", name=re.compile("✗ failed .* stage")).first.click()
    live.get_by_role("region", name=re.compile("^Task 0.*: failed")).wait_for()
    use(button(live, "Cancel"))
    button(live, "Retry failed").wait_for()
    form = notebook.run("session.form(Hostile, tasks=0)")
    until(form, "Submit")
    notebook.run("%load_ext geoflow")
    notebook.run("session")
    looks = ("job", "job.errors()", "job.tasks()", "job.attempts()", "job.logs()", "print(job)", "job.task()")
    for cell in (live, form, *(notebook.run(look) for look in (*looks, "%geoflow errors"))):
        assert "<img src=x" in cell.locator(".jp-OutputArea").inner_text()
    notebook.command("docmanager:save")
    notebook.reload()
    until(live, "1 cancelled")
    assert notebook.page.evaluate("window.__xss") is None
    assert notebook.page.locator(".jp-OutputArea :is(img[src=x], script)").count() == 0
