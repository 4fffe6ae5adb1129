"""The settings: the table of them, their checks, and where they are read from."""
