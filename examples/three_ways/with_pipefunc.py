"""The same with pipefunc: ``python with_pipefunc.py FOLDER``. Results are files; by default the first error ends it."""

import json
import sys
from pathlib import Path

from pipefunc import Pipeline, pipefunc
from tiles import listed, measured, merged


@pipefunc("path", mapspec="... -> path[i]")
def scan(folder: Path) -> list[Path]:
    return listed(folder)


@pipefunc("found", mapspec="path[i] -> found[i]")
def stat(path: Path) -> dict:
    return measured(path)


@pipefunc("total")
def merge(found) -> dict:
    return merged(list(found))


pipeline = Pipeline([scan, stat, merge], validate_type_annotations=False)

if __name__ == "__main__":
    run = pipeline.map({"folder": Path(sys.argv[1])}, "pipefunc_run", storage="file_array", show_progress=False)
    print(json.dumps(run["total"].output))
