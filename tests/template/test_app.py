"""The five files that a participant edits can be read in ten minutes."""

from pathlib import Path

import flowertune

FIVE = ("client_app.py", "server_app.py", "dataset.py", "models.py", "strategy.py")


def test_the_participants_files_have_at_most_450_lines_in_all():
    package = Path(flowertune.__file__).parent
    lines = {name: len((package / name).read_text("utf-8").splitlines()) for name in FIVE}
    assert all(lines.values())
    assert sum(lines.values()) <= 450, lines
