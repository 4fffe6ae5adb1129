"""Rows as tokens, and the record of which rows they are."""

# Toy functions stand in for an app's own here.
# pyright: reportArgumentType=false

from dataclasses import replace
from datetime import date

import pytest
from datasets import Dataset

from flowertune.base.cache import clear_cache
from flowertune.base.errors import UserError
from flowertune.client.functions import AppFunctions
from flowertune.client.rows import load_rows
from flowertune.data import examples
from flowertune.data.examples import BadRow, load_pairs, tokenized_rows
from flowertune.data.fingerprint import Fingerprint
from flowertune.data.rows import load_partition
from tests.apps import settings
from tests.tokenizers import smollm2

ROWS = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(20)]


def prompt_and_answer(row, cfg, tokenizer):
    return row["instruction"], row["output"]


@pytest.fixture
def saved(tmp_path):
    """A function that saves rows, and returns the settings of a run on them."""

    def save(rows, name="rows"):
        Dataset.from_list(rows).save_to_disk(tmp_path / name)
        load_partition.cache_clear()
        return settings({"static.dataset.name": str(tmp_path / name)})

    return save


def record(cfg, partition=0, count=2):
    return load_pairs(cfg, prompt_and_answer, None, partition, count)[1]


def test_a_record_says_which_rows_were_loaded(saved):
    cfg = saved(ROWS)
    first, second = record(cfg, 0), record(cfg, 1)
    assert (first.dataset, first.revision, first.rows) == (cfg.static.dataset.name, "main", 10)
    assert first.sha256 != second.sha256
    assert record(cfg) == first
    # The same rows in another place are the same rows.
    assert replace(record(saved(ROWS, "copy")), dataset=first.dataset) == first


def fingerprint(rows) -> Fingerprint:
    made = Fingerprint()
    for row in rows:
        made.add(row)
    return made


def test_copies_are_named_whatever_the_order_of_columns():
    made = fingerprint([*ROWS, dict(reversed(ROWS[3].items())), {**ROWS[3], "output": "else"}])
    assert (made.rows, made.copies, made.unique_rows) == (22, [20], 21)


def test_a_changed_row_and_another_order_show():
    changed = [*ROWS[:-1], {**ROWS[-1], "output": "else"}]
    digests = {fingerprint(rows).sha256 for rows in (ROWS, changed, ROWS[::-1], ROWS[:-1])}
    assert len(digests) == 4
    reordered = [dict(reversed(row.items())) for row in ROWS]
    assert fingerprint(reordered).sha256 == fingerprint(ROWS).sha256


def test_columns_that_json_has_no_form_for_are_no_obstacle(saved):
    day = [{**row, "day": date(2026, 1, n + 1)} for n, row in enumerate(ROWS)]
    moved = [{**row, "day": date(2026, 2, n + 1)} for n, row in enumerate(ROWS)]
    assert record(saved(day)).sha256 != record(saved(moved, "moved")).sha256


def test_rows_are_cut_and_those_without_an_answer_left_out(saved):
    cfg = saved([*ROWS, {"instruction": "word " * 40, "input": "", "output": "x"}])
    rows = tokenized_rows(cfg, prompt_and_answer, smollm2(), 0, 1)
    assert rows.record.rows == len(rows.examples) == 21
    kept = rows.cut(20, 0)
    assert len(kept) == 20 and max(len(example.ids) for example in kept) <= 20
    with pytest.raises(UserError, match=r"train\.seq-length is 2, .* 21 rows of partition 0"):
        rows.cut(2, 0)


def test_a_worker_reads_and_hashes_a_partition_once(saved, monkeypatch):
    hashed = []

    class Counted(Fingerprint):
        def __init__(self) -> None:
            super().__init__()
            hashed.append(self)

    monkeypatch.setattr(examples, "Fingerprint", Counted)
    functions = AppFunctions(lambda cfg: smollm2(), None, None, prompt_and_answer)
    cfg = saved(ROWS)
    clear_cache()
    first = load_rows(cfg, functions, 0, 2)
    # Settings that no row depends on: the same tokens serve.
    later = cfg.replace({"train.seq-length": 64, "strategy.timeout": 3})
    assert load_rows(later, functions, 0, 2) is first
    assert load_rows(cfg, functions, 1, 2) is not first
    assert load_rows(cfg, functions, 0, 2) is first
    assert [made.rows for made in hashed] == [10, 10]


def test_a_client_s_rows_are_those_of_the_partitioner_and_its_options(saved):
    """What a worker keeps is made anew where another split is asked for."""
    functions = AppFunctions(lambda cfg: smollm2(), None, None, prompt_and_answer)
    cfg = saved(ROWS)
    other = {"static.partitioner.name": "linear"}
    sized = {"static.partitioner.name": "size", "dataset.partitioner-options": "sizes=3/2"}
    again = {**sized, "dataset.partitioner-options": "sizes=4/2"}
    made = [load_rows(cfg.replace(c), functions, 0, 2).record for c in ({}, other, sized, again)]
    assert [record.rows for record in made] == [10, 6, 3, 4]
    assert len({record.sha256 for record in made}) == 4


@pytest.mark.parametrize("given", [None, "ab", ("prompt",), ("prompt", None), ("a", "b", "c")])
def test_what_is_not_a_prompt_and_an_answer_is_refused_without_its_content(saved, given):
    with pytest.raises(UserError, match=r"prompt_and_answer of dataset\.py") as caught:
        load_pairs(saved(ROWS), lambda row, cfg, tokenizer: given, None, 0, 2)
    assert type(given).__name__ in str(caught.value)
    assert "ab" not in str(caught.value)


BAD = {
    "null": ({"output": None}, "its 'output' is null"),
    "missing": ({"input": None}, "its 'input' is null"),
    "a list": ({"tags": ["a"]}, None),
    "empty": ({"output": " "}, "its answer is empty"),
    "no question": ({"instruction": " ", "input": ""}, "its question is empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_rows_without_a_text_are_left_out_and_never_become_the_word_none(saved, kind):
    changes, reason = BAD[kind]
    rows = [{**row, "tags": ["x"]} for row in ROWS]
    rows[3] |= changes

    def strict(row, cfg, tokenizer):
        prompt = cfg.static.dataset.question.format_map(row)
        return prompt, cfg.static.dataset.answer.format_map(row)

    cfg = saved(rows)
    pairs, record, _ = load_pairs(cfg, strict, None, 0, 1)
    bad = [pair.reason for pair in pairs if isinstance(pair, BadRow)]
    assert bad == ([reason] if reason else []) and record.rows == 20
    assert "None" not in str([pair for pair in pairs if not isinstance(pair, BadRow)])
    made = tokenized_rows(cfg, strict, smollm2(), 0, 1)
    assert [e is None for e in made.examples] == [isinstance(pair, BadRow) for pair in pairs]
    assert len(made.cut(512, 0)) == 20 - len(bad)


def test_a_column_of_lists_or_numbers_has_no_text(saved):
    for value in ([1], 1, 0.5):
        cfg = saved([{**row, "output": value} for row in ROWS], f"rows-{value}")
        rows = tokenized_rows(cfg, prompt_and_answer, smollm2(), 0, 1)
        assert rows.examples == [None] * 20
        with pytest.raises(UserError, match="none of the 20 rows of partition 0 has a text"):
            rows.cut(512, 0)


def test_a_prompt_of_ones_own_may_use_a_column_that_is_no_text_if_the_settings_do_not(saved):
    cfg = saved([{**row, "year": 1900 + n} for n, row in enumerate(ROWS)])
    pairs, _, _ = load_pairs(cfg, lambda row, cfg, tok: (str(row["year"]), "a"), None, 0, 1)
    assert len(pairs) == 20 and all(isinstance(pair, tuple) for pair in pairs)
