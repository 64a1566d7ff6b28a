"""Print the lowest versions that pyproject.toml allows, as constraints for pip, one a line."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<version>[0-9][0-9a-z.]*)")


def lowest(project: dict[str, object], extras: list[str]) -> Iterator[str]:
    """``name==version`` of each dependency that has a lower bound, and of those of *extras*."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    assert isinstance(project["dependencies"], list)
    for requirement in [*project["dependencies"], *(one for extra in extras for one in optional[extra])]:
        if found := _BOUND.match(requirement):
            yield f"{found['name']}=={found['version']}"


if __name__ == "__main__":
    file = Path(__file__).parents[1] / "pyproject.toml"
    sys.stdout.writelines(
        f"{line}\n" for line in lowest(tomllib.loads(file.read_text())["project"], sys.argv[1:] or ["test"])
    )
