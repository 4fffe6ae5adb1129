"""The live view of a run, drawn in a terminal or written as plain lines."""
