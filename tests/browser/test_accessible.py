"""What is drawn can be read: by its contrast in both themes (WCAG 2.2, AA), at twice the size, and aloud."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.driving import Lab, button, until, use
from tests.browser.test_view import TWO_KINDS

pytestmark = pytest.mark.browser

# Each text that can be seen, with how far its colour is from what is behind it; of a bar, from all of its colours.
CONTRASTS = """
root => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const channels = colour => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, bottom, share) => [0, 1, 2].map(at => top[at] * share + bottom[at] * (1 - share));
  const behind = element => {
    if (!element) return [255, 255, 255];
    const colour = channels(getComputedStyle(element).backgroundColor);
    return colour[3] > 0.999 ? colour.slice(0, 3) : over(colour, behind(element.parentElement), colour[3]);
  };
  const light = colour => {
    const bent = each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
    const part = colour.map(each => bent(each / 255));
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const element = node.parentElement, style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const is_hidden = !size || !element.getBoundingClientRect().width || style.visibility === "hidden";
    if (!node.data.trim() || is_hidden || ["STYLE", "TITLE"].includes(element.tagName)) continue;
    if (element.closest(".jp-OutputPrompt")) continue;
    const paper = behind(element), bar = element.closest(".gf-far"), grounds = [paper];
    for (const path of bar ? bar.querySelectorAll("path") : []) {
      const drawn = getComputedStyle(path);
      if (drawn.display !== "none" && drawn.stroke !== "none" && parseFloat(drawn.strokeWidth) > 10)
        grounds.push(over(channels(drawn.stroke), paper, parseFloat(drawn.strokeOpacity)));
    }
    const ink = channels(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const least = Math.min(...grounds.map(ground => ratio(over(ink, ground, ink[3]), ground)));
    const is_sign = node.data.trim().length === 1 && !/[a-z0-9]/i.test(node.data);  // words stand beside it
    const is_large = is_sign || size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    found.push({text: node.data.trim().slice(0, 40), ratio: Math.round(least * 100) / 100, least: is_large ? 3 : 4.5});
  }
  return found;
}
"""


def failed(notebook: Lab) -> Any:
    """A job of which some tasks failed, its list of tasks opened, and all that is folded."""
    cell = notebook.run(f"job = session.run('acts', tasks={TWO_KINDS} + [{{}}] * 3)\njob.watch()")
    until(cell, "Errors: 3 failed tasks")
    use(button(cell, "Tasks"))
    cell.locator(".geoflow-row").first.wait_for()
    cell.evaluate("cell => cell.querySelectorAll('details').forEach(each => each.open = true)")
    return cell


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_all_that_is_written_stands_out_from_what_is_behind_it(notebook: Lab, theme: str) -> None:
    notebook.command("apputils:change-theme", theme=f"JupyterLab {theme}")
    try:
        notebook.page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {theme}']", state="attached")
        cell = failed(notebook)
        shown = cell.locator(".jp-OutputArea").first.evaluate(CONTRASTS)
        assert len(shown) > 40
        drawn = notebook.run("session.run('acts', tasks=[{}, {}])").locator(".jp-OutputArea").first
        shown += drawn.evaluate(CONTRASTS)
        assert [each for each in shown if each["ratio"] < each["least"]] == []
    finally:
        notebook.command("apputils:change-theme", theme="JupyterLab Light")


WIDER = """
root => [...root.querySelectorAll(".geoflow, .geoflow *, .geoflow-row, .geoflow-chip")].filter(each => {
  if (each.closest(".gf-wide, pre, svg, summary") || !each.getClientRects().length) return false;
  return each.getBoundingClientRect().right > root.getBoundingClientRect().right + 1;
}).map(each => each.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize("width", [640, 490], ids=["640 pixels", "980 pixels at 200 %"])
def test_nothing_goes_beyond_the_cell_where_there_is_little_room(notebook: Lab, width: int) -> None:
    size = notebook.page.viewport_size
    notebook.command("application:toggle-left-area")
    try:
        cell = failed(notebook)
        notebook.page.set_viewport_size({"width": width, "height": 900})
        until(cell, "Errors: 3 failed tasks")
        assert cell.locator(".jp-OutputArea").first.evaluate(WIDER) == []
    finally:
        notebook.page.set_viewport_size(size)
        notebook.command("application:toggle-left-area")


def test_the_card_is_told_in_words_to_who_cannot_see_it(notebook: Lab) -> None:
    """As the accessibility tree has it: what is told by colour, place or width is said, and controls have names."""
    cell = failed(notebook)
    tree = cell.locator(".jp-OutputArea").first.aria_snapshot()
    for said in (
        'region "Job acts',
        "- status:",
        'heading "acts" [level=3]',
        'columnheader "Stage"',
        'row "failed 1 act Tasks: 3 completed, 3 failed 3/6',
        'heading "Errors: 3 failed tasks in 2 groups" [level=4]',
        'group "Where it was raised"',
        'button "Retry failed"',
        'button "✗ 3 failed"',
        'textbox "Find:"',
        'button "✗ failed s1-t0 stage 1',
        "status: 1 to 6 of 6",
    ):
        assert said in tree, tree
