"""From a dataset's name to the tokens of one client's steps."""
