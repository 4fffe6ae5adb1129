"""The file that a profile is written to, and the mark of its lines in a log."""

FILE = "profile.jsonl"
MARK = "FLWR_PROFILE "
VERSION = 1
