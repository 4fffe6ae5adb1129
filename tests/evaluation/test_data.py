"""Rows from a folder, from the sample, and from a hub that does not answer."""

import json

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
    assert found.full
    assert len(found.documents) == 1212
    assert "Input: 1855\n" in found.documents[0]["context"]
    assert found.origin["source-rows"] == 4846


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
        ([{"sentence": "x"}], "row 1 of fpb.jsonl has no label: fpb needs the columns sentence"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load(FPB, write(tmp_path, rows), 1212)


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
