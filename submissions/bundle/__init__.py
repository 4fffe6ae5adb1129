"""What a participant makes of a scored run: one zip that is checked as the organizer checks it.

sources.py      the run, its checkpoint, its score and its app, found and held to each other
difference.py   the app's own files against the template's
statement.py    submission.json: who, which division, what is claimed
contents.py     every file of a bundle, made of these
packing.py      written as a zip: the same files give the same bytes
states.py       the states of drawn rounds, which are handed over later
options.py      the command line, read and checked at once
refusal.py      why there is no bundle, cause by cause
cli.py          the command
"""
