"""The same with joblib: ``python with_joblib.py FOLDER``. Nothing is kept, and the first error ends it."""

import json
import sys
from pathlib import Path

from joblib import Parallel, delayed
from tiles import listed, measured, merged


def tile_stats(folder: Path) -> dict:
    return merged(Parallel(n_jobs=2)(delayed(measured)(path) for path in listed(folder)))


if __name__ == "__main__":
    print(json.dumps(tile_stats(Path(sys.argv[1]))))
