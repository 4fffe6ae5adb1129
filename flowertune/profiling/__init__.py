"""Record where the time, bytes and memory of a run go; `flwr profile` shows it (profiler/)."""
