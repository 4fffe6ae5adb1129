"""A file that only grows, and what a kill leaves behind its last mark."""

import pytest

from flowertune.run.growing import GrowingFile

LINES = [{"round": n, "loss": 1 / (n + 1), "text": "é"} for n in range(6)]


def grown(path, lines):
    file = GrowingFile(path)
    for line in lines:
        file.append([line])
    return file


@pytest.mark.parametrize("left", [b"", b'{"round": 3}\n', b'{"round": 3, "lo', b"\xff\n\n"])
def test_what_a_kill_left_is_cut_off_and_the_file_ends_as_if_nothing_had_happened(tmp_path, left):
    grown(tmp_path / "whole", LINES)
    path = tmp_path / "killed"
    mark = grown(path, LINES[:3]).mark()
    with path.open("ab") as file:
        file.write(left)
    again = GrowingFile(path)
    assert again.go_on(mark) == LINES[:3]
    again.cut()
    again.append(LINES[3:])
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert again.mark() == grown(tmp_path / "third", LINES).mark()


def test_nothing_is_written_while_a_run_that_goes_on_is_not_let_in(tmp_path):
    path = tmp_path / "file"
    mark = grown(path, LINES[:3]).mark()
    before = path.read_bytes() + b"left by a kill"
    path.write_bytes(before)
    GrowingFile(path).go_on(mark)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "it has .* bytes, and the run had written"),
        (lambda data: data.replace(b'"round": 1', b'"round": 7'), "are not those that the run"),
        (None, "it cannot be read"),
    ],
)
def test_a_file_that_changed_before_its_mark_is_refused(tmp_path, damage, said):
    path = tmp_path / "file"
    mark = grown(path, LINES).mark()
    data = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(data))
    with pytest.raises(ValueError, match=said):
        GrowingFile(path).go_on(mark)
