"""The file that a profile is written to."""

FILE = "profile.jsonl"
VERSION = 1
