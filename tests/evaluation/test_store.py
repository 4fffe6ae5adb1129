"""Answers that survive a kill."""

import pytest

from evaluation import provenance, store
from evaluation.store import Store, store_path
from flowertune.base.errors import UserError


def test_a_second_store_knows_what_the_first_was_told(tmp_path):
    path = tmp_path / "a.jsonl"
    first = Store(path)
    first.put("x", "with\nnewline")
    first.put("y", [1.5, True])
    second = Store(path)
    assert second.get("x") == "with\nnewline"
    assert second.get("y") == [1.5, True]
    assert second.get("z") is None


def test_a_line_that_was_cut_off_is_left_out_and_the_next_one_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    Store(path).put("x", "1")
    path.write_text(path.read_text() + '["y", "hal')
    second = Store(path)
    assert set(second.known) == {"x"}
    second.put("z", "3")
    assert set(Store(path).known) == {"x", "z"}


@pytest.mark.parametrize(
    "line",
    [
        "{bad}",
        '{"key": "x"}',
        '{"key": "x", "answer": 7}',
        '{"key": "x", "answer": [1, 2]}',
        '{"key": [1], "answer": "1"}',
    ],
)
def test_another_damage_is_one_sentence(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{line}\n{{"key": "y", "answer": "1"}}\n')
    with pytest.raises(UserError, match=r"a\.jsonl cannot be resumed from .*: remove it to start"):
        Store(path)
    assert line in path.read_text()


def test_without_a_file_nothing_is_kept():
    store = Store(None)
    store.put("x", "1")
    assert store.get("x") is None
    store.remove()


def test_the_end_of_a_run_removes_it(tmp_path):
    store = Store(tmp_path / "a.jsonl")
    store.put("x", "1")
    store.remove()
    assert list(tmp_path.iterdir()) == []


def test_other_facts_are_another_file():
    facts = {"adapter": "1", "dtype": "float32"}
    same = store_path(dict(reversed(facts.items())))
    assert store_path(facts) == same
    assert store_path({**facts, "adapter": "2"}) != same


def test_a_cache_that_cannot_be_written_keeps_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(store, "answers_folder", lambda: tmp_path / "file")
    assert provenance.open_store({"official-batching": False}).path is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "Answers are not kept while they come (" in line
    assert "Set FLOWERTUNE_CACHE" in line
