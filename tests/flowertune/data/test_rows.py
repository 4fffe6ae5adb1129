"""flowertune.data.rows: rows from the hub or this machine, and their partitions."""

import json
import os

import datasets
import pytest
from datasets import Dataset, DatasetDict
from datasets import config as datasets_config
from datasets.exceptions import DatasetNotFoundError
from flwr_datasets.partitioner import IidPartitioner

from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.data import rows
from flowertune.data.rows import check_columns, is_local, load_partition, load_rows

ROWS = [{"instruction": f"do {i}", "input": "{{ x }} {% y", "output": str(i)} for i in range(120)]


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets_config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    rows.load_partition.cache_clear()
    rows._shuffled_rows.cache_clear()


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)


def write_jsonl(path, items=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def load(name, app_dir):
    return load_rows(name, "main", app_dir)


@pytest.mark.parametrize("name", ["rows.jsonl", "./data/rows.jsonl", "./data/odd [1].jsonl"])
def test_a_jsonl_file_beside_the_app(tmp_path, name):
    write_jsonl(tmp_path / name)
    assert load(name, tmp_path).to_list() == ROWS


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv", "saved", "saved splits"])
def test_a_folder_in_any_form(tmp_path, form):
    folder = tmp_path / "data"
    dataset = Dataset.from_list(ROWS)
    match form:
        case "jsonl":
            write_jsonl(folder / "data.jsonl")
        case "saved":
            dataset.save_to_disk(folder)
        case "saved splits":
            splits = DatasetDict({"test": dataset.select([0]), "train": dataset})
            splits.save_to_disk(folder)
        case _:
            folder.mkdir()
            getattr(dataset, f"to_{form}")(folder / f"train.{form}")
    loaded = load(str(folder), tmp_path / "elsewhere")
    assert [str(output) for output in loaded["output"]] == [row["output"] for row in ROWS]
    assert loaded.column_names == ["instruction", "input", "output"]


def test_names_that_are_local():
    assert is_local("a.jsonl") and is_local("./a") and is_local("~/a") and is_local("/a")
    assert not is_local("owner/name")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file or folder"),
        ('{"a": 1}\n{"a": \n', "line 2 is not a JSON object"),
        ('{"a": 1}\n\n[1]\n', "line 3 is not a JSON object"),
        ("\n", "holds no rows"),
        ('{"a": "x"}\n{"a": "\\ud800"}\n', "line 2 holds half a surrogate pair"),
        ('{"a": 1}\n{"a": 1, "a": 2}\n', "line 2 names 'a' twice"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        load("./a.jsonl", tmp_path)
    assert "static.dataset.name" in str(caught.value) and "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_rows(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load("./a.jsonl", tmp_path).to_list() == ROWS


@pytest.mark.parametrize("value", [5, ["a"], {"a": 1}, None, True])
def test_one_value_of_another_type_leaves_the_texts_beside_it_texts(tmp_path, value):
    items = [*ROWS[:5], {**ROWS[5], "output": value}, *ROWS[6:]]
    write_jsonl(tmp_path / "a.jsonl", items)
    assert load("./a.jsonl", tmp_path).to_list() == items
    dealt = [load_partition("a.jsonl", "main", tmp_path, 2, part).to_list() for part in (0, 1)]
    texts = [row["output"] for part in dealt for row in part if isinstance(row["output"], str)]
    assert len(texts) == len(ROWS) - 1


def test_a_folder_without_data_is_one_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        load("./data", tmp_path)


def test_splits_without_train_are_named(tmp_path):
    one = Dataset.from_list(ROWS[:1])
    DatasetDict({"dev": one, "test": one}).save_to_disk(tmp_path / "data")
    with pytest.raises(UserError, match="splits dev, test"):
        load("./data", tmp_path)


@pytest.mark.parametrize("name", ["owner/name", "name"])
def test_the_hub_out_of_reach_is_one_sentence(tmp_path, offline, name):
    for call in (load, lambda name, app: load_partition(name, "main", app, 5, 0)):
        with pytest.raises(UserError, match=r"cannot be reached.*\.jsonl") as caught:
            call(name, tmp_path)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Dataset 'o/n' is a gated dataset on the Hub.", "hf auth login"),
        ("Dataset 'o/n' doesn't exist on the Hub", "does not exist"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(tmp_path, monkeypatch, message, words):
    def refuse(*args, **kwargs):
        raise DatasetNotFoundError(message)

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(rows, "load_dataset", refuse)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    for call in (load, lambda name, app: load_partition(name, "main", app, 5, 0)):
        with pytest.raises(UserError, match=words):
            call("o/n", tmp_path)


def test_partitions_hold_every_row_once_and_evenly(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    parts = [load_partition("a.jsonl", "main", tmp_path, 50, i).to_list() for i in range(50)]
    assert {len(part) for part in parts} == {2, 3}
    outputs = [row["output"] for part in parts for row in part]
    assert sorted(outputs, key=int) == [row["output"] for row in ROWS]
    assert outputs != sorted(outputs, key=int)


def test_a_local_copy_is_cut_as_the_hub_dataset(tmp_path, monkeypatch):
    asked, official = [], IidPartitioner(50)
    official.dataset = Dataset.from_list(ROWS).shuffle(seed=42)

    def from_hub(path, name=None, **kwargs):
        asked.append((path, kwargs))
        return DatasetDict({"train": Dataset.from_list(ROWS)})

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    write_jsonl(tmp_path / "a.jsonl")
    for part in (0, 7, 49):
        one = load_partition("owner/name", "v1", tmp_path, 50, part)
        other = load_partition("a.jsonl", "main", tmp_path, 50, part)
        assert one.to_list() == other.to_list()
        assert one.to_list() == official.load_partition(part).to_list()
    assert asked == [("owner/name", {"revision": "v1"})]


def test_another_number_of_partitions_is_another_cut(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    assert len(load_partition("a.jsonl", "main", tmp_path, 50, 0)) == 3
    assert len(load_partition("a.jsonl", "main", tmp_path, 10, 0)) == 12


def test_fewer_rows_than_partitions_is_one_sentence(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS[:49])
    with pytest.raises(UserError, match=r"49 rows, too few for 50 SuperNodes.*connect"):
        load_partition("a.jsonl", "main", tmp_path, 50, 0)
    assert len(load_partition("a.jsonl", "main", tmp_path, 49, 48)) == 1


def test_columns_that_are_there_pass():
    check_columns(["a", "b"], "{a} {b}", "{b}", "{{literal}} {question} {a}\n")


def test_every_unknown_column_is_named_with_those_there():
    with pytest.raises(UserError) as caught:
        check_columns(["a", "b"], "{a} {c}", "{d}", "{question} {e} {e}")
    text = str(caught.value)
    for words in (
        "static.dataset.question uses {c}",
        "static.dataset.answer uses {d}",
        "prompt.template uses {e}",
        "the dataset has a, b",
    ):
        assert text.count(words) == 1


@pytest.mark.parametrize("template", ["{a", "{}", "{a.b}", "{a[0]}", "{question}"])
def test_malformed_templates_are_named(template):
    with pytest.raises(UserError, match=r"static\.dataset\.question"):
        check_columns(["a"], template, "{a}", "{a}")


def test_what_cannot_be_read_is_a_sentence_and_nothing_is_waited_for(tmp_path):
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"instruction": "é", "input": "", "output": "x"}\n'.encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.parquet").write_bytes(b"PAR1 no PAR1")
    for name, said in (
        ("latin.jsonl", r"not in UTF-8 \(byte 0xe9\)"),
        ("pipe.jsonl", "neither a file nor a folder"),
        ("./broken", "cannot be read"),
        ("./none", "there is no file or folder"),
    ):
        with pytest.raises(UserError, match=said):
            load(name, tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(tmp_path, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.exists", refuse)
    with pytest.raises(UserError, match=r"static\.dataset\.name .* Permission denied"):
        load(str(tmp_path / "closed" / "rows"), tmp_path)
