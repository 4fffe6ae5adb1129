"""Rounds of a submission trained again, in a sandbox, and compared with what its chain says.

draw.py     which rounds: the first, the last, and some that nobody could know at submission
record.py   what the bundle says of its run: settings, lines, chain
states.py   the states that the participant hands over, held to the chain
inputs.py   the organizer's own model and rows, and where they appear in the sandbox
sandbox.py  trains one round again, from outside
inside.py   trains one round again, inside: the bundle's app over a grid of one process
tensors.py  files of tensors that somebody else wrote
compare.py  what differs first, and by how much
report.py   what was done and found, as text and as JSON
cli.py      the command
"""
