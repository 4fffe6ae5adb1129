"""Where the time, bytes and memory of a run go: recorded by the app, read by `flwr profile`."""
