"""The data report, and rows as the model sees them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from flowertune.base.errors import UserError
from flowertune.cli.main import main
from flowertune.data import row_view as view
from flowertune.data.examples import tokenized_rows
from flowertune.data.lengths import BAD, Lengths, lengths_of
from flowertune.data.report import (
    refuse_if_too_many_are_bad,
    refuse_if_too_many_are_empty,
    report_of,
)
from flowertune.data.report_text import as_text
from flowertune.data.tokens import Example, encode
from flowertune.planning.data_summary import summarize
from template.app.client_app import app
from tests.apps import rendered, settings
from tests.tiny import save_tiny_llama
from tests.tokenizers import mistral, smollm2

PAIRS = [
    ("### Instruction:\nIs this good?\n### Response:", "positive"),
    ("Answer: ", "neutral"),
    ("Answer:", " spaced </s> and a stop in it"),
    ("Ende", "lein: where the two merge"),
    ("Größe 🙂", "µm\n\nand more"),
    ("a prompt", ""),
]


def ends_with_eos() -> Any:
    """A tokenizer that puts special tokens on both ends."""
    with TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(save_tiny_llama(Path(folder)))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    return tokenizer


@pytest.mark.parametrize("tokenizer", [mistral, smollm2, ends_with_eos])
def test_rows_have_the_same_tokens_in_every_company(tokenizer):
    """Rows are tokenized many at once, and a tokenizer could treat them otherwise than alone."""
    made = tokenizer()
    alone = [encode(made, [pair])[0] for pair in PAIRS]
    assert encode(made, PAIRS * 300) == alone * 300
    assert lengths_of(alone) == [Lengths(e.answer_start, len(e.ids)) for e in alone]
    assert all(list(e.ids).count(made.eos_token_id) == 1 for e in alone)


def test_the_report_counts_and_names():
    short, cut, empty = Lengths(6, 10), Lengths(6, 25), Lengths(20, 24)
    report = report_of({3: [short, empty], 0: [short, short, cut]}, seq_length=20)
    assert report["rows"] == 5 and report["partitions"] == 2
    assert report["rows-per-partition"] == {"fewest": 2, "most": 3}
    # 3 x 10 tokens and one row cut at 20, of which each has a prompt of 6; the empty row is out
    assert report["tokens"] == 50 and report["supervised-tokens"] == 3 * 4 + 14
    assert report["supervised-share"] == 26 / 50
    assert report["without-answer"]["rows"] == 1 and report["without-answer"]["share"] == 0.2
    assert report["without-answer"]["first"] == [
        {"partition": 3, "row": 1, "prompt-tokens": 20, "tokens": 24}
    ]
    assert [(r["partition"], r["row"]) for r in report["cut-answer"]["first"]] == [(0, 2)]
    assert report["row-tokens"] == {"median": 10, "p95": 25, "longest": 25}
    assert report["longest-rows"][0]["tokens"] == 25
    assert json.loads(json.dumps(report)) == report
    text = as_text(report)
    assert "2 partitions of 2 to 3 rows" in text and "partition 3 row 1 (24 tokens)" in text
    assert "(52.0%)" in text


def test_a_row_with_room_for_one_token_is_cut_and_not_empty():
    report = report_of({0: [Lengths(19, 22)]}, seq_length=20)
    assert report["without-answer"]["rows"] == 0 and report["cut-answer"]["rows"] == 1
    assert report["supervised-tokens"] == 1


def test_rows_without_a_text_are_counted_named_and_refused_above_a_share():
    rows = [Lengths(5, 9)] * 95 + [Lengths(*BAD)] * 5
    report = report_of({0: rows, 3: [Lengths(5, 9)]}, seq_length=20)
    assert report["rows"] == 101 and report["bad"]["rows"] == 5 and report["tokens"] == 96 * 9
    assert report["bad"]["first"][0] == {"partition": 0, "row": 95}
    assert "5 rows (4.95%) without a text for question or answer: left out" in as_text(report)
    refuse_if_too_many_are_bad(report, 0.05)
    with pytest.raises(UserError, match=r"5 of 101 rows.* 1% allowed.*--partition 0 --row 95"):
        refuse_if_too_many_are_bad(report, 0.01)
    assert "without a text" not in as_text(report_of({0: [Lengths(5, 9)]}, 20))


def test_copies_are_counted_by_partition():
    new, again = Lengths(5, 9), Lengths(5, 9, copy=True)
    report = report_of({0: [new, again, again], 1: [new, new, again]}, 20)
    assert report["copies"] == {"rows": 3, "share": 0.5}
    assert report["unique-rows-per-partition"] == {"fewest": 1, "most": 2}
    sentence = "3 rows (50.00%) are copies of another row of the same partition: 1 to 2 unique rows"
    assert sentence in as_text(report)
    assert "1 row (50.00%) is a copy" in as_text(report_of({0: [new, again]}, 20))
    assert "cop" not in as_text(report_of({0: [new, new]}, 20))
    # The same row in two partitions: who has all of them sees it.
    report = report_of({0: [new, new], 1: [new, new]}, 20, unique_rows=3)
    assert "3 unique rows in all" in as_text(report) and report["copies"]["rows"] == 0
    assert "in all" not in as_text(report_of({0: [new, new]}, 20, unique_rows=2))


def test_a_report_of_nothing_is_a_report():
    assert report_of({}, 8)["supervised-share"] == 0.0
    assert "0 rows in 0 partitions" in as_text(report_of({}, 8))


def test_what_is_not_amiss_is_not_said():
    assert len(as_text(report_of({0: [Lengths(5, 9)] * 3}, 20)).splitlines()) == 3


def test_too_many_rows_without_an_answer_are_refused():
    rows = [Lengths(5, 9)] * 94 + [Lengths(30, 40)] * 6
    report = report_of({0: rows}, seq_length=20)
    with pytest.raises(UserError, match=r"6 of 100 rows \(6\.0%\).*partition 0, row 94: 30 tok"):
        refuse_if_too_many_are_empty(report)
    refuse_if_too_many_are_empty(report, allowed=0.06)


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "instruction": "Say " + "very " * (n % 7) + "much",
            "input": "",
            "output": "so " * (1 + n % 5),
        }
        for n in range(60)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return settings(
        {
            "model.name": str(save_tiny_llama(folder / "model")),
            "static.dataset.name": str(folder / "rows.jsonl"),
            "prompt.template": "{question}\nAnswer:",
            "train.seq-length": 40,
        }
    )


def examples_of(cfg, tokenizer, partitions: int) -> list[Example]:
    """The rows that clients train on, of all partitions."""
    prompt, length = app.functions.prompt_and_answer, cfg.train.seq_length
    return [
        example
        for number in range(partitions)
        for example in tokenized_rows(cfg, prompt, tokenizer, number, partitions).cut(
            length, number
        )
    ]


def test_the_report_of_a_run_is_of_the_rows_that_train(cfg):
    tokenizer = AutoTokenizer.from_pretrained(cfg["model.name"])
    report = summarize(cfg, app.functions, tokenizer, partitions=4)
    examples = examples_of(cfg, tokenizer, 4)
    assert report["rows"] - report["without-answer"]["rows"] == len(examples)
    assert report["tokens"] == sum(len(e.ids) for e in examples)
    assert report["supervised-tokens"] == sum(len(e.ids) - e.answer_start for e in examples)
    assert 0 < report["without-answer"]["rows"] < 60 and report["cut-answer"]["rows"] > 0


def test_a_rows_parts_are_its_tokens():
    tokenizer = smollm2()
    prompt, answer = "Q: What is it?\nA:", "a small thing"
    (example,) = encode(tokenizer, [(prompt, answer)])
    parts = view.parts_of(tokenizer, prompt, answer, 64)
    assert [part.fate for part in parts] == ["read", "learned"]
    assert [part.text for part in parts] == [prompt, " a small thing<|im_end|>"]
    assert sum(part.tokens for part in parts) == len(example.ids)
    within = view.parts_of(tokenizer, prompt, answer, example.answer_start + 1)
    assert [(p.fate, p.text) for p in within][1:] == [
        ("learned", " a"),
        ("cut", " small thing<|im_end|>"),
    ]
    before = view.parts_of(tokenizer, prompt, answer, 3)
    assert [part.fate for part in before] == ["read", "cut"]
    assert view.counts(before).startswith("3 masked, 0 supervised, ")


def test_without_color_marks_tell_parts_apart():
    parts = [view.Part("read", "Q", 1), view.Part("learned", "A", 1), view.Part("cut", "Z", 1)]
    assert view.marked(parts).plain == "Q>>>A<<<~~~Z~~~"
    assert view.colored(parts).plain == "QAZ"
    assert {span.style for span in view.colored(parts).spans} == set(view.STYLES.values())


def test_data_cannot_steer_the_terminal():
    assert view.printable("a\x1b[31mb\r\x07é\n") == "a\\x1b[31mb\\r\\x07é\n"


def test_a_chat_template_is_what_is_measured(cfg):
    tokenizer = smollm2()
    chat = cfg.replace({"model.chat-template": True, "train.seq-length": 512})
    report = summarize(chat, app.functions, tokenizer, partitions=4)
    examples = examples_of(chat, tokenizer, 4)
    assert report["tokens"] == sum(len(e.ids) for e in examples)
    assert tokenizer.decode(examples[0].ids).startswith("<|im_start|>system")


def run(cfg, capsys, *arguments: str) -> tuple[int, str, str]:
    keys = ("model.name", "static.dataset.name", "train.seq-length")
    changes = " ".join(f"{key}={cfg[key]!r}" for key in keys)
    app = ["--app", str(rendered("general-nlp")), "--run-config", changes]
    status = main(["inspect", *app, *arguments])
    return status, *capsys.readouterr()


def test_the_command_shows_rows_and_the_report(cfg, capsys, monkeypatch):
    monkeypatch.setattr("flowertune.base.hub.reachable", lambda: False)
    wide = cfg.replace({"train.seq-length": 512})
    status, out, _ = run(wide, capsys, "--supernodes", "4", "--partition", "2", "--rows", "2")
    assert status == 0 and "\x1b[" not in out
    assert "partition 2, row 1:" in out and "partition 2, row 2:" not in out
    assert "60 rows in 4 partitions of 15 rows" in out and "<<<" in out
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, colored, _ = run(wide, capsys, "--supernodes", "4", "--row", "3")
    assert "\x1b[1;32m" in colored and "<<<" not in colored and "row 3:" in colored
    monkeypatch.setenv("NO_COLOR", "1")
    _, plain, _ = run(wide, capsys, "--supernodes", "4", "--row", "3")
    assert "32m" not in plain and "<<<" in plain


def test_the_command_gives_json_and_refuses_what_is_not_there(cfg, capsys):
    status, out, _ = run(cfg, capsys, "--supernodes", "4", "--json")
    assert status == 0 and json.loads(out)["rows"] == 60
    assert run(cfg, capsys, "--partition", "50")[::2] == (
        1,
        "error: --partition is 50; use a number from 0 to 49.\n",
    )
    status, _, err = run(cfg, capsys, "--supernodes", "4", "--row", "15")
    assert status == 1 and "partition 0 has rows 0 to 14" in err
