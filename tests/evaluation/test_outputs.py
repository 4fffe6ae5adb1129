"""Where results are written: whole, and never through a link."""

import pytest

from evaluation import outputs
from flowertune.base.errors import UserError


def test_what_is_in_the_way_is_replaced_and_no_link_is_followed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "out"
    outside.write_text("keep")
    folder.mkdir()
    (folder / "results.json").symlink_to(outside)
    (folder / "notes.txt").write_text("keep")
    with outputs._staged(folder) as staging:
        (staging / "results.json").write_text("new")
        (staging / "rows").mkdir()
        (staging / "rows" / "fpb.jsonl").write_text("row")
    assert outside.read_text() == (folder / "notes.txt").read_text() == "keep"
    assert not (folder / "results.json").is_symlink()
    assert (folder / "results.json").read_text() == "new"
    assert (folder / "rows" / "fpb.jsonl").read_text() == "row"
    assert {path.name for path in folder.iterdir()} == {"results.json", "rows", "notes.txt"}


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path, kind):
    outside, folder = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    folder.mkdir()
    place = folder / "rows"
    if kind == "file":
        place.write_text("")
    else:
        place.symlink_to(outside if kind == "link" else tmp_path / "nowhere")
    with (
        pytest.raises(UserError, match="rows is a link or a file, and a folder has to be there"),
        outputs._staged(folder) as staging,
    ):
        (staging / "rows").mkdir()
        (staging / "rows" / "fpb.jsonl").write_text("row")
    assert list(outside.iterdir()) == []
    assert [path.name for path in folder.iterdir()] == ["rows"]


def test_line_separators_in_rows_end_no_line_for_any_reader():
    text = outputs._line({"context": "a\u2028b\u0085c\u2029d", "é": 1})
    assert len(text.splitlines()) == 1
    assert "é" in text
    assert outputs.json.loads(text)["context"] == "a\u2028b\u0085c\u2029d"
