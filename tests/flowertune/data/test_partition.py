"""Rows dealt out by flwr-datasets' partitioners, chosen by settings."""

import json
import warnings
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset
from flwr_datasets import partitioner as of

import challenges
from flowertune.base.errors import SettingsError, UserError
from flowertune.config.checks import check_settings
from flowertune.config.partitioners import EVENLY, NAME, OPTIONS, TABLE, scheme_of
from flowertune.config.settings import PARTITIONERS, Settings
from flowertune.data.rows import dealt_rows, load_partition
from tests.apps import default_settings

# 60 rows, three answers, five users, a number each.
ROWS = [
    {
        "instruction": f"do {n}", "input": "", "output": ("no", "yes", "maybe")[n % 3],
        "user": f"user {n * n % 5}", "length": float(n % 17),
    }
    for n in range(60)
]  # fmt: skip
SHUFFLED = Dataset.from_list(ROWS).shuffle(seed=42)


def settings(name: str, options: str = "", **changes: object) -> Settings:
    flat = {**default_settings("finance"), NAME: name, OPTIONS: options, **changes}
    return check_settings(flat, Path("/nowhere"))


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def split(path: Path, name: str, options: str, count: int) -> list[list[dict]]:
    scheme = scheme_of(settings(name, options))
    return [
        load_partition(str(path), "main", path.parent, count, number, scheme).to_list()
        for number in range(count)
    ]


CASES = {
    "dirichlet": ("", 4, lambda n: of.DirichletPartitioner(n, "output", 0.5, 1)),
    "dirichlet, all options": (
        "alpha=0.1, min-rows=3, balanced=true, seed=7, by=user", 3,
        lambda n: of.DirichletPartitioner(n, "user", 0.1, 3, True, seed=7),
    ),
    "pathological": ("classes=1", 4, lambda n: of.PathologicalPartitioner(n, "output", 1)),
    "pathological, in turn": (
        "mode=deterministic, by=user", 5,
        lambda n: of.PathologicalPartitioner(n, "user", 2, "deterministic"),
    ),
    "shard": ("shards=3", 4, lambda n: of.ShardPartitioner(n, "output", 3)),
    "natural-id": ("by=user", 3, lambda n: of.NaturalIdPartitioner("user")),
    "natural-id, two a client": (
        "by=user, ids=2", 2,
        lambda n: of.GroupedNaturalIdPartitioner("user", 2, sort_unique_ids=True),
    ),
    "continuous": (
        "by=length, strictness=0.9", 4, lambda n: of.ContinuousPartitioner(n, "length", 0.9)
    ),
    "linear": ("", 4, of.LinearPartitioner),
    "square": ("", 4, of.SquarePartitioner),
    "exponential": ("", 3, of.ExponentialPartitioner),
    "size": ("sizes=30/20/5", 3, lambda n: of.SizePartitioner([30, 20, 5])),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rows_are_dealt_out_as_by_the_class_itself(case, rows_file):
    options, count, make = CASES[case]
    official = make(count)
    official.dataset = SHUFFLED
    ours = split(rows_file, case.partition(",")[0], options, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours == [official.load_partition(number).to_list() for number in range(count)]
        assert official.num_partitions == count
    dealt = [row["instruction"] for part in ours for row in part]
    assert len(set(dealt)) == len(dealt) <= len(ROWS)


def test_every_name_has_its_case_and_its_place_in_the_table():
    assert {case.partition(",")[0] for case in CASES} | {"iid"} == set(PARTITIONERS) == set(TABLE)


def test_dirichlet_of_the_finance_sample_is_skewed_in_labels_and_sizes():
    """0.1 of ten clients: what a published table was made with."""
    path = Path(str(challenges.sample("finance")))
    parts = split(path, "dirichlet", "alpha=0.1", 10)
    most = [max(Counter(row["output"] for row in part).values()) / len(part) for part in parts]
    assert sum(map(len, parts)) == 1080
    assert sum(share > 0.8 for share in most) >= 5  # IID: about a third each
    assert max(map(len, parts)) > 5 * min(map(len, parts))


def test_another_seed_is_another_split_and_the_same_seed_the_same(rows_file):
    one, other = (split(rows_file, "dirichlet", f"seed={seed}", 4) for seed in (1, 2))
    dealt_rows.cache_clear()
    load_partition.cache_clear()
    assert one != other
    assert one == split(rows_file, "dirichlet", "seed=1", 4)


def test_the_column_is_the_answers_unless_said():
    assert scheme_of(settings("dirichlet"))["by"] == "output"
    assert str(scheme_of(settings("shard", "by=user"))) == "shard (by user, seed 42, shards 2)"
    assert scheme_of(settings("iid")) == EVENLY


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("iid", "alpha=0.1", "the options of iid are written name=value"),
        ("dirichlet", "alpha=0", "gives alpha of dirichlet the value '0'; use a number above 0"),
        ("dirichlet", "beta=1", "and are: by, alpha, min-rows, balanced, seed"),
        ("dirichlet", "balanced=maybe", "use true or false"),
        ("pathological", "mode=odd", "use random, deterministic, first-deterministic"),
        ("natural-id", "", "gives no by, which natural-id needs"),
        ("size", "sizes=3/0", "use rows of each client, such as 300/200/100"),
    ],
)
def test_wrong_options_are_named_before_anything_is_loaded(name, options, said):
    with pytest.raises(SettingsError) as caught:
        settings(name, options)
    (problem,) = caught.value.problems
    assert problem.startswith(OPTIONS)
    assert said in problem


def test_an_answer_of_two_columns_needs_a_name():
    with pytest.raises(SettingsError, match="made of 2 columns; say in"):
        settings("shard", **{"static.dataset.answer": "{output} {input}"})


@pytest.mark.parametrize(
    ("name", "options", "count", "said"),
    [
        ("dirichlet", "by=label", 4, "no column 'label': it has input, instruction, length"),
        ("dirichlet", "alpha=0.01, min-rows=10", 6, "max number of attempts"),
        ("natural-id", "by=user", 4, "that makes 3 partitions for 4 SuperNodes"),
        ("size", "sizes=30/40", 2, "is greater than the size of the dataset 60"),
        ("size", "sizes=30/20", 3, "that makes 2 partitions for 3 SuperNodes"),
        ("exponential", "", 20, "flwr-datasets cannot"),
        ("continuous", "by=user", 4, "could not convert"),
        ("pathological", "classes=9", 4, "greater than the number of unique classes"),
    ],
)
def test_a_split_that_cannot_be_is_one_sentence(name, options, count, said, rows_file):
    with pytest.raises(UserError) as caught:
        split(rows_file, name, options, count)
    assert str(caught.value).startswith(f"{NAME} is {name}")
    assert said in str(caught.value)
    assert OPTIONS in str(caught.value)
