"""A federation of real SuperNodes on this machine: ``python -m flowertune.federation``."""
