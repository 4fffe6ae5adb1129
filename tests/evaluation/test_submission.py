"""What is read of a folder that somebody hands in, and what is not."""

import json
import os
import shutil
import time

import pytest

from evaluation import submission
from flowertune.base.errors import UserError
from flowertune.rules.checkpoint import checkpoint_digest


@pytest.fixture
def folder(tmp_path, finance_checkpoint):
    """A copy of the checkpoint that a test may change."""
    return shutil.copytree(finance_checkpoint, tmp_path / "peft_2")


def sentence_of(folder):
    """Return the sentence that refuses what is handed in, within a second."""
    began = time.monotonic()
    with pytest.raises(UserError) as caught, submission.opened(folder):
        pass
    assert time.monotonic() - began < 1
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_only_three_files_are_copied_and_the_copy_goes_away(folder):
    (folder / "tokenizer.json").write_text("{}")
    (folder / "modeling.py").write_text("raise SystemExit")
    with submission.opened(folder) as found:
        copy = found.folder
        assert sorted(os.listdir(copy)) == ["adapter_config.json", "adapter_model.safetensors"]
        assert copy.resolve() != folder.resolve()
        assert found.digest == checkpoint_digest(folder)
        assert os.stat(copy.parent).st_mode & 0o077 == 0
    assert not copy.exists()
    assert not copy.parent.exists()


def test_a_change_after_it_was_read_changes_nothing(folder):
    with submission.opened(folder) as found:
        (folder / "adapter_model.safetensors").write_bytes(b"other")
        assert (found.folder / "adapter_model.safetensors").stat().st_size > 5


def test_peft_gets_nothing_that_it_would_import(folder):
    path = folder / "adapter_config.json"
    body = json.loads(path.read_text())
    body |= {"auto_mapping": {"parent_library": "os"}, "megatron_core": "os"}
    path.write_text(json.dumps(body))
    with submission.opened(folder) as found:
        copied = json.loads((found.folder / "adapter_config.json").read_text())
    assert not {"auto_mapping", "megatron_core"} & copied.keys()
    assert copied["r"] == 4


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_a_pipe_or_a_folder_is_not_read(folder, name, tmp_path):
    path = folder / name
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    assert f"{path} is a symbolic link, not a regular file" in sentence_of(folder)
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is a named pipe" in sentence_of(folder)
    path.unlink()
    path.mkdir()
    assert f"{path} is a folder" in sentence_of(folder)
    path.rmdir()
    assert f"it has no {name}" in sentence_of(folder)


def test_a_manifest_that_is_a_pipe_is_not_read(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with submission.opened(folder) as found:
        assert found.manifest is None
        assert found.manifest_problem == "is a named pipe, not a regular file"


def test_pickled_weights_are_not_read(folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    assert "only adapter_model.bin, which could run code when it is read" in sentence_of(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ('{"r": 4, "r": 4}', "names 'r' twice"),
        ('{"a":' * 100_000, "is nested more than 32 deep"),
        ("[]", "is not a JSON object"),
        ("{}", "has no peft_type"),
        (" " * (2 * 2**20 + 1), "and at most 2,097,152 are read"),
    ],
)
def test_a_bad_configuration_is_one_sentence(folder, text, reason):
    (folder / "adapter_config.json").write_text(text)
    assert reason in sentence_of(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_modules", r"(.*)*(.*)*(.*)*x"),
        ("exclude_modules", r"(a|a)*b"),
        ("rank_pattern", {r"(.*)*(.*)*x": 4}),
        ("peft_type", "PREFIX_TUNING"),
        ("base_model_name_or_path", None),
        ("megatron_config", {"tensor_parallel": 1}),
        ("r", "4"),
    ],
)
def test_a_value_that_peft_must_not_get_is_named(folder, key, value):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert f"has {key} " in sentence_of(folder)


def test_a_rank_that_the_weights_do_not_have_is_named(folder):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 1_000_000}))
    assert "has the rank 1000000, and the weights beside it have ranks up to 4" in sentence_of(
        folder
    )


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"


def test_damaged_weights_are_one_sentence(folder):
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for damaged, reason in (
        (b"", "damaged or cut off"),
        (whole[:100], "damaged or cut off"),
        (whole[:-1], "damaged or cut off"),
        (whole + b"x", "damaged or cut off"),
        (b"\xff" * 100, "damaged or cut off"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds no tensors"),
        (POINTER, "is a pointer of Git LFS"),
    ):
        path.write_bytes(damaged)
        assert reason in sentence_of(folder)


def header(count):
    """Return a safetensors file of empty tensors."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    body = json.dumps({f"x{number}": empty for number in range(count)}).encode()
    return len(body).to_bytes(8, "little") + body


def test_more_tensors_than_an_adapter_has_are_refused(folder):
    (folder / "adapter_model.safetensors").write_bytes(header(20_001))
    assert "has 20,001 tensors, and at most 20,000 are read" in sentence_of(folder)
    (folder / "adapter_model.safetensors").write_bytes(header(150_000))
    assert "bytes, and at most 4,194,304 are read" in sentence_of(folder)


def test_a_name_that_is_no_text_is_not_blamed_on_the_files(folder):
    sentence = sentence_of(folder.rename(folder.with_name("peft_\udcff")))
    assert r"peft_\udcff' is the checkpoint's folder, and its name is no UTF-8 text" in sentence


def test_no_room_for_the_copy_is_one_sentence(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(submission, "copy_regular", full)
    assert "there is no room for a private copy" in sentence_of(folder)
