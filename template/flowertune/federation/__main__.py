"""``python -m flowertune.federation``."""

from flowertune.federation.command import main

if __name__ == "__main__":
    raise SystemExit(main())
