"""Take the pictures in docs/screenshots: JupyterLab in Chromium, with jobs that run, fail and end, light and dark.

pip install -e '.[browser]' && python tools/screenshots.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.driving import Cell, Lab, button, chromium, jupyter, missing, until, use  # noqa: E402

TO = ROOT / "docs" / "screenshots"
TYPE = """
import time
from typing import Literal

from pydantic import BaseModel, Field
import geoflow as gf

class Params(BaseModel):
    scenes: int = Field(default=240, ge=1, le=1000, description="How many of the newest are taken.")
    clouds: float = Field(default=0.2, ge=0, le=1, description="The share of a scene that clouds may cover.")
    resampling: Literal["nearest", "bilinear", "cubic"] = "bilinear"
    area: str = Field(min_length=3, description="The name of a region, or its bounding box.")

clip_scenes = gf.JobType("clip_scenes", params=Params, description="Scenes over an area, clipped and put together.")

@clip_scenes.stage
def search(p: Params) -> list[str]:
    return [f"S2A_{number:04d}" for number in range(p.scenes)]

@clip_scenes.each(search, key=str)
def clip(scene: str, p: Params) -> float:
    time.sleep(0.02)
    if scene in broken:
        raise ValueError(f"{scene}: band 8A has no CRS")
    if scene in absent:
        raise gf.errors.ResourceNotFoundError(f"{scene} is not in the archive any more")
    return 0.25

@clip_scenes.reduce(clip)
def mosaic(parts: list[float]) -> dict:
    return {"scenes": len(parts), "area": sum(parts)}

@clip_scenes.finalize
def summary(total: dict) -> dict:
    if unlucky:
        total["clear"] = total["clear_pixels"] / total["area"]
    return total

broken, absent, unlucky = (), (), False
session = gf.open("scenes.db", workers=2, max_retries=0)
"""


def save(cell: Cell, name: str) -> None:
    cell.screenshot(path=TO / f"{name}.png", animations="disabled")


def page(browser: Any, path: Path, name: str, theme: str) -> None:
    """A page that was saved to be sent, as it is read, and once as it is printed."""
    for media in ("screen", "print") if theme == "light" else ("screen",):
        width = 720 if media == "print" else 1000  # that of a sheet
        opened = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)
        opened.emulate_media(media=media)
        opened.goto(path.as_uri())
        opened.screenshot(path=TO / f"{name}-{'printed' if media == 'print' else theme}.png")
        opened.close()


def shots(lab: Lab, theme: str) -> None:
    lab.run(TYPE)
    cell = lab.run('session.form(clip_scenes, area="Po", scenes=400)')
    until(cell, "at least 3 characters")
    save(cell, f"form-{theme}")

    cell = lab.run('job = clip_scenes.run(area="Po valley", scenes=400, session=session)', wait=False)
    button(cell, "Cancel").wait_for()
    lab.page.wait_for_function("/1\\d\\d.400/.test(document.body.innerText)")
    save(cell, f"running-{theme}")
    use(button(cell, "Cancel"))
    lab.until_run(cell)

    lab.run('broken, absent = ("S2A_0007", "S2A_0031", "S2A_0052"), ("S2A_0044",)')
    cell = lab.run('job = clip_scenes.run(area="Po valley", scenes=60, session=session)')
    use(button(cell, "Tasks"))
    cell.locator(".geoflow-row").first.wait_for()
    save(cell, f"failed-{theme}")
    lab.run('_ = job.save("job.html"); _ = job.task().bundle("bad.zip").unpack("bad")')

    lab.run("broken = absent = (); unlucky = True")
    cell = lab.run('job = clip_scenes.run(area="Po valley", scenes=80, session=session)')
    button(cell, "Finalize again").wait_for()
    save(cell, f"with-errors-{theme}")

    lab.run('long = clip_scenes.submit(area="Upper Rhine", scenes=400, session=session)')
    cell = lab.run("session.watch()")
    until(cell, "processing")
    use(cell.locator(".geoflow-row").nth(1))
    cell.get_by_text("3 mosaic").wait_for()
    save(cell, f"jobs-{theme}")
    lab.run("end = long.cancel()")

    lab.run('broken = ("S2A_0007", "S2A_0031", "S2A_0052")')
    cell = lab.run('job = clip_scenes.run(area="Po valley", scenes=100, session=session)')
    button(cell, "Retry failed").wait_for()
    lab.command("docmanager:save")
    lab.restart()
    lab.reload()
    cell.get_by_text("Error displaying widget").wait_for(state="attached")
    save(cell, f"reopened-{theme}")
    lab.errors.clear()


def main() -> None:
    if reason := missing():
        sys.exit(reason)
    TO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, jupyter(Path(folder)) as (url, notebooks), chromium() as browser:
        lab = Lab(browser, url, notebooks, width=980, height=1500)  # high enough for every cell
        for theme in ("light", "dark"):
            with lab.opened(theme):
                lab.command("apputils:change-theme", theme=f"JupyterLab {theme.capitalize()}")
                lab.command("application:toggle-left-area")
                lab.run(f"import os; os.makedirs('{theme}'); os.chdir('{theme}')")
                shots(lab, theme)
            page(browser, notebooks / theme / "job.html", "page", theme)
            page(browser, notebooks / theme / "bad" / "index.html", "bundle", theme)
    for path in sorted(TO.glob("*.png")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
