"""Write constraints.txt: the versions, in this environment, of what geoflow and its tests depend on.

`.ci/run` calls it when all has passed and KEEP_CONSTRAINTS is set.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRAS = re.compile(r"extra\s*==\s*[\"'](\w+)")


def needed(name: str, extras: set[str], found: dict[str, str]) -> dict[str, str]:
    """*found* with the versions of what *name* and *extras* of it need, where that is installed."""
    for requirement in distribution(name).requires or ():
        wanted = _EXTRAS.search(requirement)
        matched = _NAME.match(requirement)
        if matched is None or (wanted and wanted[1] not in extras):
            continue
        key = re.sub(r"[-_.]+", "-", matched[0]).lower()
        if key in found or key == "geoflow":
            continue
        try:
            found[key] = distribution(key).version
        except PackageNotFoundError:  # it is for another system
            continue
        needed(key, set(), found)
    return found


if __name__ == "__main__":
    versions = needed("geoflow", {"test"}, {})
    head = f"# What the last run of all checks that passed was made with, on Python {platform.python_version()}.\n"
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions)]
    (Path(__file__).parents[1] / "constraints.txt").write_text(head + "".join(lines))
