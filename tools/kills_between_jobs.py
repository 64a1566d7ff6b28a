"""Whether each job of a batch is followed by exactly one, though the processes that drive them are killed.

python tools/kills_between_jobs.py             sixty kills; status 1 where one follows twice, or none does
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.helpers.following import JOBS, killed, wrong  # noqa: E402

KILLS, AT_ONCE = 60, 4


def main() -> int:
    dead, bad = 0, []
    rounds = 0
    while dead < KILLS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "work.db")
            dead += killed(path, AT_ONCE, 0.3, rounds)
            if amiss := wrong(path):
                bad.append(f"seed {rounds}: {amiss}")
        rounds += 1
    print(f"{dead} kills in {rounds} batches of {JOBS} jobs, each followed by one: {len(bad)} batches are wrong")
    print("\n".join(bad), end="")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
