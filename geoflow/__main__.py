"""``python -m geoflow``: the same as the ``geoflow`` command."""

import sys

from geoflow.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
