"""Where a profile is written, and how its lines are marked in a log."""

FILE = "profile.jsonl"
MARK = "FLWR_PROFILE "
VERSION = 1
