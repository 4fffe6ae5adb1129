"""Which folder a result goes to."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation import output_folder
from flowertune.base.errors import UserError


def chosen(**given: Any) -> Path:
    words = {"output": None, "base_only": False, "suite": "official", "model": None}
    checkpoint: Any = SimpleNamespace(digest="0123456789abcdef", path=Path("results/x/peft_2"))
    given = {"checkpoint": checkpoint, **given}
    checkpoint = given.pop("checkpoint")
    return output_folder.choose("finance", Namespace(**{**words, **given}), checkpoint)


def test_a_checkpoints_digest_suite_and_kind_make_the_folder():
    assert chosen() == Path("scores/0123456789ab/finance-official")
    assert chosen(suite="standard") == Path("scores/0123456789ab/finance-standard")
    assert chosen(base_only=True) == Path("scores/0123456789ab/finance-official-base")
    assert chosen(output=Path("mine")) == Path("mine")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("owner/Model-7B_v0.3", "model-Model-7B-v0.3"),
        ("/models/a b [1]", "model-a-b-1"),
        ("/", "model-unnamed"),
    ],
)
def test_a_model_without_a_checkpoint_has_a_folder_by_its_name(model, name):
    assert chosen(checkpoint=None, model=model) == Path("scores") / name / "finance-official"


def test_the_folder_of_the_checkpoint_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "results/x/peft_2"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    for output in ("results/x/peft_2", "results/x/peft_2/scores", "link/scores"):
        with pytest.raises(UserError, match="which is in the checkpoint's own folder"):
            chosen(output=Path(output))
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="which is in the checkpoint's own folder"):
        chosen(checkpoint=SimpleNamespace(digest="0" * 64, path=folder))


@pytest.mark.parametrize("place", ["scores", "scores/0123456789ab"])
def test_a_link_that_was_put_in_the_way_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{place} is a link, and results are not written"):
        chosen()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have_is_one_sentence(name):
    with pytest.raises(UserError, match=r"cannot be written to .*another folder with"):
        output_folder.check_writable(Path(name))


@pytest.mark.parametrize("place", ["results.md", "results.json", "rows/fpb.jsonl"])
def test_a_folder_where_a_file_has_to_be_is_found_before_scoring(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(UserError, match=f"where {place} is a folder and a file has to be"):
        output_folder.check_writable(tmp_path)


@pytest.mark.parametrize("place", ["rows", "lm-eval"])
def test_a_file_where_a_folder_has_to_be_is_found_before_scoring(tmp_path, place):
    (tmp_path / place).write_text("")
    with pytest.raises(UserError, match=f"where {place} is a link or a file and a folder has"):
        output_folder.check_writable(tmp_path)


def test_the_check_of_a_folder_follows_no_link_and_leaves_nothing(tmp_path):
    outside = tmp_path / "outside"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".writable").symlink_to(outside)
    output_folder.check_writable(tmp_path / "out")
    output_folder.check_writable(tmp_path / "new" / "folder")
    assert not outside.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
