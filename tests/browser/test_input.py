"""The form of a job type and the magic in JupyterLab: what one types there is what runs."""

from __future__ import annotations

import pytest

from tests.browser.driving import Lab, button, until, use

pytestmark = pytest.mark.browser

CUT = """
from pydantic import BaseModel, Field

class Params(BaseModel):
    name: str = Field(min_length=3, description="What the tiles are called.")
    tiles: int = Field(default=2, ge=1)

cut = gf.JobType("cut", params=Params)

@cut.stage
def tiles(p: Params) -> list[str]:
    return [f"{p.name} {number}" for number in range(p.tiles)]

form = session.form(cut)
form
"""


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_S7_what_is_wrong_is_said_while_one_types_and_what_is_right_runs(notebook: Lab, how: str) -> None:
    cell = notebook.run(CUT)
    name, submit = cell.get_by_role("textbox", name="name"), button(cell, "Submit")
    name.focus()
    notebook.page.keyboard.type("ab")
    until(cell, "String should have at least 3 characters")
    assert submit.is_disabled()
    notebook.page.keyboard.type("c")
    cell.get_by_text("String should have").wait_for(state="hidden")
    notebook.run("import threading\nthreading.Event().wait(4)", wait=False)
    cell.get_by_label("tiles").fill("3")
    use(submit, how)
    until(cell, "was submitted")
    until(cell, "✓ completed")
    assert "('abc', 3)" in notebook.run("form.job.parameters['name'], form.job.parameters['tiles']").inner_text()


def test_the_magic_gives_tables_and_says_what_is_wrong_in_one_line(notebook: Lab) -> None:
    notebook.run("%load_ext geoflow")
    cell = notebook.run("%geoflow run acts tasks=[{'do': 'raise', 'value': 'ValueError'}]")
    until(cell, "✗ failed")
    errors = notebook.run("%geoflow errors").get_by_role("table")
    assert errors.get_by_role("cell", name="a ValueError on purpose").is_visible()
    assert "failed" in notebook.run("%geoflow tasks").get_by_role("table").inner_text()
    wrong = notebook.run("%geoflow status ffff")
    until(wrong, "has an id that begins with 'ffff'")
    assert "Traceback" not in wrong.inner_text()
