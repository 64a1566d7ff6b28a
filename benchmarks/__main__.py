"""Measure geoflow beside its yardsticks on this machine, and print one table: ``python -m benchmarks --help``."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figures, heading, line
from benchmarks.parts import PARTS, Run
from benchmarks.tasks import load, machine


def main() -> None:
    width = max(map(len, PARTS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure geoflow beside its yardsticks on this machine, and print one table.",
        epilog="parts:\n" + "\n".join(f"  {name:<{width}}  {part.__doc__}" for name, part in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="what to measure; all of it when none is named")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured: 5, or 2 with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and nothing of more than 10,000 tasks")
    parser.add_argument("--large", action="store_true", help="jobs of 1,000,000 tasks too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the values of all rounds to FILE")
    options = parser.parse_args()
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(PARTS)}")

    for name in [name for name in os.environ if name.startswith("GEOFLOW_")]:
        del os.environ[name]  # the user's own settings are not what is measured
    about = machine()
    print(f"{about}\n\n{heading(options.markdown)}", flush=True)
    figures = Figures()
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="geoflow-benchmark-") as folder:
            rounds = options.rounds or (2 if options.quick else 5)
            PARTS[name](Run(figures, Path(folder), rounds, options.quick, options.large))
        for figure in figures.of(name):
            print(line(figure.cells(), options.markdown))
        sys.stdout.flush()
    print(f"\nload after: {load()}")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about, "figures": figures.as_dicts()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
