"""One HTML page about one run: no scripts, no other files."""
