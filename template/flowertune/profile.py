"""Where the time, bytes and memory of a run went: ``python -m flowertune.profile``."""

from flowertune.profiling.command import main

if __name__ == "__main__":
    main()
