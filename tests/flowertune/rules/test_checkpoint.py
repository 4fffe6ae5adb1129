"""The digest of a checkpoint."""

import pytest

from flowertune.rules.checkpoint import CONFIG, WEIGHTS, checkpoint_digest, scores_folder


def test_weights_and_configuration_make_the_digest_and_nothing_else(tmp_path):
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    (tmp_path / CONFIG).write_text("{}")
    first = checkpoint_digest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert checkpoint_digest(tmp_path) == first
    (tmp_path / CONFIG).write_text('{"r": 1}')
    second = checkpoint_digest(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"others")
    assert len({first, second, checkpoint_digest(tmp_path)}) == 3
    assert scores_folder(first).parts == ("scores", first[:12])


def test_a_folder_without_an_adapter_has_none(tmp_path):
    with pytest.raises(OSError):
        checkpoint_digest(tmp_path)
