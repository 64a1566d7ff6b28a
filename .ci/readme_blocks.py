"""Run the python blocks of a Markdown file from top to bottom, as one reader would who types them in.

All blocks share one ``__main__``, in an empty folder. A block runs if its fence says ``python`` and no more; a block
that is to be read only is fenced otherwise. Usage: ``python readme_blocks.py README.md``.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import types
from pathlib import Path

FENCE = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str]]:
    """Each block of *text* after the number of its first line."""
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in FENCE.finditer(text)]


def run(document: Path) -> None:
    """Run the blocks of *document*; the first that raises ends it."""
    found = blocks(document.read_text(encoding="utf-8"))
    if not found:
        raise SystemExit(f"no python block found in {document}")
    # Functions typed into a notebook live in __main__ and travel by value; those of the document must do the same.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    for line, code in found:
        print(f"{document.name}:{line}", flush=True)
        # The empty lines make a traceback, and inspect.getsource, point into the document.
        exec(compile("\n" * (line - 1) + code, str(document), "exec"), main.__dict__)
    print(f"{len(found)} blocks of {document.name} ran")


if __name__ == "__main__":
    source = Path(sys.argv[1]).resolve()
    scratch = tempfile.mkdtemp()
    # Registered before any block ran, so removed after what the blocks left open has closed itself.
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.chdir(scratch)
    run(source)
