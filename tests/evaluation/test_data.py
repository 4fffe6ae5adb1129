"""Rows from a folder, from the sample, and from a hub that does not answer."""

import json
import os

import pytest

from evaluation import data, sets
from evaluation.sets import Hub
from flowertune.base.errors import UserError

FPB = sets.of_challenge("finance").named()["fpb"]


def write(folder, rows, name="fpb"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data.Source("folder", folder)


def test_a_whole_source_goes_through_the_official_choice(tmp_path):
    rows = [{"sentence": str(n), "label": n % 3} for n in range(FPB.whole)]
    found = data.load(FPB, write(tmp_path, rows), 1212)
    assert found.status == "unverified"
    assert not found.full
    assert len(found.documents) == 1212
    assert "Input: 1855\n" in found.documents[0]["context"]
    assert found.origin["source-rows"] == 4846


def test_a_folder_is_official_by_the_hash_on_record_and_by_nothing_else(tmp_path):
    rows = [{"sentence": str(n), "label": n % 3} for n in range(FPB.whole)]
    source = write(tmp_path, rows)
    sha256 = data.load(FPB, source, 1212).rows_sha256
    known = data.load(FPB, source, 1212, "standard", sha256)
    assert known.status == "official"
    assert known.origin["on-record"] is True
    assert data.load(FPB, source, 1212, "official", "0" * 64).status == "unverified"
    # A row of the selection, edited.
    rows[1855]["label"] = (rows[1855]["label"] + 1) % 3
    edited = data.load(FPB, write(tmp_path, rows), 1212, "official", sha256)
    assert edited.status == "unverified"


def test_edited_rows_in_the_cache_of_the_hub_are_refused_where_a_hash_is_on_record(monkeypatch):
    tfns = sets.of_challenge("finance").named()["tfns"]
    rows = [{"text": str(n), "label": n % 3} for n in range(tfns.whole)]
    monkeypatch.setattr(data, "_from_hub", lambda hub: (rows, {"source": "hub"}))
    found = data.load(tfns, data.Source("hub"), 2388)
    assert found.full
    assert data.load(tfns, data.Source("hub"), 2388, "official", found.rows_sha256).full
    with pytest.raises(UserError, match="are not those that the rules have on record for tfns"):
        data.load(tfns, data.Source("hub"), 2388, "official", "0" * 64)


@pytest.mark.parametrize(
    ("challenge", "name", "column"),
    [
        *(("finance", "fpb", "sentence"), ("finance", "fiqa", "sentence")),
        *(("finance", "tfns", "text"), ("general-nlp", "stem", "question")),
        *(("medical", name, "question") for name in ("pubmedqa", "medmcqa", "medqa")),
    ],
)
def test_a_blank_prompt_is_refused(challenge, name, column):
    item = sets.of_challenge(challenge).named()[name]
    (row,) = data.read_jsonl(data.SAMPLES / challenge / item.file)[:1]
    with pytest.raises(UserError, match=f"row 1 of x has {column} ' ', and the set needs a text"):
        data.check_rows(item, [{**row, column: " "}], "x")


def test_any_other_number_is_scored_as_it_is_and_is_not_full(tmp_path):
    rows = [{"sentence": str(n), "label": n % 3} for n in range(1212)]
    found = data.load(FPB, write(tmp_path, rows), 1212)
    assert not found.full
    assert len(found.documents) == 1212
    assert "Input: 0\n" in found.documents[0]["context"]


def test_the_digest_follows_the_documents(tmp_path):
    one = data.load(FPB, write(tmp_path, [{"sentence": "a", "label": 0}]), 1212)
    same = data.load(FPB, write(tmp_path, [{"sentence": "a", "label": 0, "more": 1}]), 1212)
    other = data.load(FPB, write(tmp_path, [{"sentence": "a", "label": 1}]), 1212)
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "has no rows"),
        (['{"sentence": "x", "label": 1}', "{"], "line 2 is not a JSON object"),
        (["[1]"], "line 1 is not a JSON object"),
        (
            [{"sentence": "x"}],
            "row 1 of fpb.jsonl has no label, and the set needs the columns sentence",
        ),
        (
            ['{"sentence": "x", "label": ' + "[" * 9000 + "]" * 9000 + "}"],
            "line 1 is not a JSON object",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load(FPB, write(tmp_path, rows), 1212)


CHALLENGES = ("finance", "general-nlp", "medical", "code")
NAMED = {name: item for c in CHALLENGES for name, item in sets.of_challenge(c).named().items()}
FOUR = ["a", "b", "c", "d"]


def good_row(item):
    challenge = next(c for c in CHALLENGES if item.name in sets.of_challenge(c).named())
    return data.read_jsonl(data.SAMPLES / challenge / item.file)[0]


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        *(("fpb", "label", value) for value in (-1, 3, True, "1", 1.0, None, [1])),
        *(("tfns", "label", value) for value in (-1, 9, False)),
        *(("fiqa", "sentiment_score", value) for value in (float("nan"), 1.5, None, "0.1", True)),
        *(("fpb", "sentence", value) for value in (None, ["x"], 3, "\ud800")),
        ("fiqa", "format", None),
        *(("stem", "answer", value) for value in (-1, 4, True, "A")),
        *(("stem", "choices", value) for value in (FOUR[:3], [*FOUR, "e", "f"], "abcd", None)),
        *(("medmcqa", "cop", value) for value in (-1, 4, True)),
        *(("medmcqa", "opd", value) for value in (None, 3)),
        ("medmcqa", "ope", "a fifth"),
        *(("careqa", "cop", value) for value in (0, 5, True)),
        *(("careqa", "op4", value) for value in (None, ["x"])),
        ("careqa", "op5", "a fifth"),
        *(("pubmedqa", "final_decision", value) for value in ("unsure", "", None, ["yes"], "Yes")),
        *(("pubmedqa", "context", value) for value in ("text", {"contexts": "text"}, None)),
        ("pubmedqa", "context", {"contexts": []}),
        *(("medqa", "options", value) for value in (FOUR, dict(zip("ABC", "xyz", strict=True)))),
        ("medqa", "options", dict(zip("ABCDEF", "uvwxyz", strict=True))),
        ("medqa", "answer", "none of them"),
        *(("mbpp", "test_list", value) for value in ("assert 1", [], [None])),
        *(("humaneval", "prompt", value) for value in (None, 3)),
        ("multiple-js", "stop_tokens", None),
    ],
)
def test_no_label_is_made_of_a_wrong_value(tmp_path, name, column, value):
    item = NAMED[name]
    good = good_row(item)
    source = write(tmp_path, [good, {**good, column: value}], item.file.removesuffix(".jsonl"))
    for suite in sets.SUITES:
        with pytest.raises(UserError) as caught:
            data.load(item, source, 5, suite)
        sentence = str(caught.value)
        assert sentence.startswith(f"row 2 of {item.file} has ")
        assert column in sentence
        assert "\n" not in sentence


ODD = "a\u2028b\u0085c\x0cd"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_odd_line_separators_and_a_byte_order_mark_end_no_row(tmp_path, encoding, end):
    folder = tmp_path / "data [1] *"
    folder.mkdir()
    lines = [json.dumps({"sentence": ODD, "label": 1}, ensure_ascii=False)] * 2
    (folder / "fpb.jsonl").write_bytes(end.join([*lines, ""]).encode(encoding))
    found = data.load(FPB, data.Source("folder", folder), 1212)
    assert [f"Input: {ODD}\n" in row["context"] for row in found.documents] == [True, True]


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fpb.jsonl")
    with pytest.raises(UserError, match="is no file that can be read to its end"):
        data.load(FPB, data.Source("folder", tmp_path), 1212)


def test_latin_1_is_one_sentence(tmp_path):
    (tmp_path / "fpb.jsonl").write_bytes('{"sentence": "é"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"line 1 of .* is not UTF-8 \(it may be Latin-1\)"):
        data.load(FPB, data.Source("folder", tmp_path), 1212)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "is no JSON object"),
        ("{", "is no JSON object with entries"),
        ("{}", "is no JSON object with entries"),
        ('{"1": 2}', "entry 1 of .* is no object"),
        ('{"1": {"QUESTION": "x", "CONTEXTS": "x", "final_decision": "no"}}', "has CONTEXTS 'x'"),
        ('{"x": {"QUESTION": "x", "CONTEXTS": ["x"], "final_decision": "no"}}', "no PubMed id"),
    ],
)
def test_a_bad_file_of_pubmedqa_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "ori_pqal.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        data.load(NAMED["pubmedqa"], data.Source("folder", tmp_path), 500)


def test_a_folder_named_like_the_data_set_is_not_read_in_its_place(tmp_path, monkeypatch):
    (tmp_path / "pauri32" / "fiqa-2018").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="would be read in place of the data set pauri32/fiqa-2018"):
        data.load(NAMED["fiqa"], data.Source("hub"), 304)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"fpb\.jsonl cannot be read"):
        data.load(FPB, data.Source("folder", tmp_path), 1212)


def test_the_sample_is_never_full():
    source = data.Source("sample", data.SAMPLES / "finance")
    for item in sets.of_challenge("finance").sets:
        found = data.load(item, source, 1)
        assert found.documents
        assert not found.full


class FakeHub:
    """Stands in for the hub's client."""

    sha = "0123"

    def dataset_info(self, path, revision=None):
        return self


def test_hub_rows_are_read_split_by_split_at_a_fixed_revision(monkeypatch):
    import datasets
    import huggingface_hub

    calls = []

    def load_dataset(path, split, **options):
        calls.append((path, split, options))
        return [{"sentence": split, "sentiment_score": 0, "format": "post"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    fiqa = sets.of_challenge("finance").named()["fiqa"]
    with pytest.raises(UserError, match="has 3 rows of which 3 would be scored, but fiqa needs"):
        data.load(fiqa, data.Source("hub"), 304)
    assert calls == [
        ("pauri32/fiqa-2018", split, {"revision": "0123"})
        for split in ("train", "validation", "test")
    ]


def test_a_pinned_revision_is_read_as_it_is(monkeypatch):
    import datasets
    import huggingface_hub

    read = []

    def load_dataset(path, split, **options):
        read.append(options)
        return []

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("asked the hub"))
    pinned = "c30699e8356da336a370243923dbaf21066bb9fe"
    _, origin = data._from_hub(Hub("some/set", ("test",), config="all", revision=pinned))
    assert read == [{"name": "all", "revision": pinned}]
    assert origin["revision"] == pinned


def test_no_hub_is_one_sentence(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def unreachable(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(UserError) as caught:
        data._from_hub(Hub("some/set", ("test",)))
    assert "some/set cannot be read from the Hugging Face hub (ConnectionError)" in str(
        caught.value
    )
    assert "--data-dir" in str(caught.value)
    assert "\n" not in str(caught.value)
