"""The ``geoflow`` command, also as ``python -m geoflow``."""

import gc
import sys


def main() -> int:
    """Do what the command line says; the exit code."""
    gc.disable()  # imports make no garbage, and to look for it took a twentieth of a short command; see cli._done
    from geoflow.commands import cli

    try:
        return cli.main()
    finally:
        gc.freeze()  # nor does the end: the interpreter looks through all that there is, twice


if __name__ == "__main__":
    sys.exit(main())
