"""The board: a static site made of what was verified, and the forms of two hosts."""
