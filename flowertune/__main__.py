"""``python -m flowertune``, the same as ``flowertune``."""

import sys

from flowertune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
