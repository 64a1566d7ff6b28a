"""``python -m geoflow``: the same as the ``geoflow`` command."""

import sys

from geoflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
