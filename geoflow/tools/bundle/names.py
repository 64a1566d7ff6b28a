"""What files in a bundle may be called: nothing that leads out of the folder that it is unpacked to."""

from __future__ import annotations

import re

from geoflow.support.text import plain

TASK, PAGE, README, RUN, CODE, INPUTS = "task.json", "index.html", "README.txt", "run.py", "code/", "inputs/"
OWN = (TASK, PAGE, README, RUN)
LONGEST = 240
MOST_TEXT = 64_000_000  # bytes of all texts in a bundle together
_MODULE = re.compile(r"(?:[^\W\d]\w*/)*[^\W\d]\w*\.py")


def problem_of(name: str) -> str | None:
    """What is wrong with a *name* in a bundle, in a few words; None where nothing is."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        return "leads out of the bundle"
    if plain(name) != name or any(part in ("", ".") or part != part.strip() for part in parts) or "\n" in name:
        return "has characters or parts that no name should have"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if name in OWN or name.startswith(INPUTS):
        return None
    if not name.startswith(CODE):
        return "is nothing that a bundle has"
    return None if _MODULE.fullmatch(name.removeprefix(CODE)) else "is no name of a module"
