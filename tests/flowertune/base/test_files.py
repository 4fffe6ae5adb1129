"""Files and folders are there whole or not at all."""

import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from flowertune.base.files import (
    flower_home,
    new_folder,
    read_json,
    read_jsonl,
    save_tensors,
    write_atomically,
    write_json,
    write_jsonl,
)


# typer imports a name that click is about to drop
@pytest.mark.filterwarnings("ignore:'click.utils")
def test_flower_home_is_flowers_own(monkeypatch):
    from flwr.supercore.utils import get_flwr_home

    for value in ("/somewhere", ""):
        monkeypatch.setenv("FLWR_HOME", value)
        assert flower_home(os.environ) == get_flwr_home()


def test_symlink_and_mode_stay(tmp_path):
    real = tmp_path / "dotfiles" / "config.toml"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    write_atomically(link, "new\r\n")
    assert link.is_symlink()
    assert real.read_bytes() == b"new\r\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [path.name for path in real.parent.iterdir()] == ["config.toml"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_folder_takes_the_old_ones_place_whole(tmp_path):
    target = tmp_path / "model"
    with new_folder(target) as half:
        (half / "a").write_text("1")
        assert not target.exists()
    with new_folder(target) as half:
        (half / "b").write_text("2")
        assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path):
    target = tmp_path / "model"
    with new_folder(target) as half:
        (half / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), new_folder(target) as half:
        (half / "a").write_text("2")
        raise KeyboardInterrupt
    assert (target / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_killed_writers_half_folder_is_no_obstacle(tmp_path):
    (tmp_path / ".model.part" / "deep").mkdir(parents=True)
    with new_folder(tmp_path / "model") as half:
        assert list(half.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_lines_are_read_back_but_for_one_that_was_cut_off(tmp_path):
    file = tmp_path / "rounds.jsonl"
    assert read_jsonl(file) == []
    write_jsonl(file, [{"round": 1}, {"round": 2, "é": None}])
    with file.open("a") as lines:
        lines.write('{"round": 3')
    assert read_jsonl(file) == [{"round": 1}, {"round": 2, "é": None}]


@pytest.mark.parametrize("line", ["{", "[1]", "1"])
def test_a_damaged_line_is_named(tmp_path, line):
    file = tmp_path / "rounds.jsonl"
    file.write_text(f'{{"round": 1}}\n{line}\n{{"round": 3}}\n')
    with pytest.raises(ValueError, match="line 2") as caught:
        read_jsonl(file)
    assert str(file) in str(caught.value)


def test_json_is_written_alike_whatever_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": {"d": 1, "c": 2}})
    write_json(tmp_path / "b", {"a": {"c": 2, "d": 1}, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"a": {"c": 2, "d": 1}, "b": 1}
    (tmp_path / "a").write_text("[1]")
    assert read_json(tmp_path / "a") is read_json(tmp_path / "nowhere") is None


def test_tensors_are_readable_by_whoever_may_read_their_folder(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    tensors = {"w": torch.arange(6.0).reshape(2, 3).T}
    save_tensors(tensors, folder / "a.safetensors", {"format": "pt"})
    assert stat.S_IMODE((folder / "a.safetensors").stat().st_mode) == 0o644
    assert torch.equal(load_file(folder / "a.safetensors")["w"], tensors["w"])
    with pytest.raises(OSError) as caught:
        save_tensors(tensors, folder / "nowhere" / "a.safetensors")
    assert caught.value.filename == str(folder / "nowhere" / "a.safetensors")


def test_a_tensor_that_is_kept_under_two_names_is_written_twice(tmp_path):
    whole = torch.arange(6.0)
    tensors = {"a": whole, "b": whole, "part": whole[2:4], "sparse": whole.to_sparse()}
    save_tensors(tensors, tmp_path / "a.safetensors")
    loaded = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(loaded[name], t.to_dense()) for name, t in tensors.items())
