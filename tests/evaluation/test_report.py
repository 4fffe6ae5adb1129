"""Tables, notes and what is published beside a score."""

from fractions import Fraction

import pytest

import challenges
from evaluation import report, sets
from evaluation.data import Documents
from evaluation.sets import Answer, Outcome

ENTRIES = challenges.load("finance")["evaluation"]["sets"]


def answers(right, rows, parseable=True):
    """Answers of which the first `right` are right; targets change from row to row."""
    labels = ("negative", "neutral", "positive", "neutral")
    return [
        Answer(
            {"target": labels[n % 4]},
            ["x"],
            Outcome("neutral", Fraction(int(n < right)), parseable),
        )
        for n in range(rows)
    ]


def finance_results(found, published=True, suite="official"):
    """What results.json would hold for the published rows of every finance set."""
    named = sets.of_challenge("finance").named()
    made = {
        entry["set"]: report.set_result(
            named[entry["set"]],
            suite,
            entry,
            Documents([], {}, "official", "", "", []),
            found(entry),
            published,
        )
        for entry in ENTRIES
    }
    models = list(found(ENTRIES[0]))
    return {
        "suite": suite,
        "models": models,
        "sets": made,
        "unofficial": [],
        "rules": {"name": "50-supernodes", "version": "1.0.0"},
        "deviations": [],
        "contamination": {"checked": False, "reason": "no rows"},
        "pinned": {
            "evaluation-rows": dict.fromkeys(made, "unverified"),
            "rows-trained-on": "unverified",
            "base-model": "unverified",
        },
        "decoding": {"batching": "official", "official-batch-size": 32},
        "average": report.averages(made, models),
        "published-average": "45.27" if published else None,
    }


RIGHT = {"fpb": 540, "fiqa": 190, "tfns": 687}


def test_the_published_baseline_comes_out_of_its_own_counts():
    results = finance_results(lambda e: {"model": answers(RIGHT[e["set"]], e["rows"])})
    scores = {name: r["scores"]["model"]["score"] for name, r in results["sets"].items()}
    assert scores == {"fpb": "44.55", "fiqa": "62.50", "tfns": "28.77"}
    assert results["average"]["scores"]["model"]["score"] == "45.27"
    header, *_, last = report.table(results)
    assert header[0] == "suite official"
    assert header[-1] == "published"
    assert last[-1] == "45.27"
    assert all(result["full"] for result in results["sets"].values())


def test_the_table_says_how_rows_were_batched_and_so_were_the_baselines():
    results = finance_results(lambda e: {"model": answers(RIGHT[e["set"]], e["rows"])})
    assert any("in the official batches of 32, as a lead" in note for note in report.notes(results))
    results["decoding"]["batching"] = "rows"
    assert report.table(results)[0][-1] == "published (batches of 32)"
    assert any("Each row decided by itself; a lead" in note for note in report.notes(results))


def test_partial_data_show_no_published_baseline():
    results = finance_results(lambda e: {"model": answers(3, 9)}, published=False)
    assert "published" not in report.table(results)[0]
    assert any("PARTIAL" in note for note in report.notes(results))
    assert report.table(results)[1][1] == "9*"


def test_two_models_stand_side_by_side_with_an_interval():
    results = finance_results(lambda e: {"base": answers(30, 100), "checkpoint": answers(60, 100)})
    header, first, *_ = report.table(results)
    assert header[2:5] == ["base model", "fine-tuned", "difference (95 %)"]
    assert first[2] == "30.00 [21.9, 39.6]"
    assert first[4].startswith("+30.00 [+")
    low, high = results["sets"]["fpb"]["difference"]["interval-95"]
    assert 15 < float(low) < 30 < float(high) < 43


@pytest.mark.parametrize(("parseable", "said"), [(False, True), (True, False)])
def test_a_score_below_chance_says_why(parseable, said):
    results = finance_results(lambda e: {"model": answers(5, 100, parseable)})
    (*_, last) = report.notes(results)
    assert last.startswith("Below chance, with answers that are none of the allowed ones") is said
    # One line for all sets.
    assert last.count("chance 33.33; 100.00 % no answer") == (3 if said else 0)


def test_rows_that_are_not_on_record_are_marked():
    results = finance_results(lambda e: {"model": answers(3, 9)}, published=False)
    results["sets"]["fpb"]["data"]["status"] = "unverified"
    assert [row[1] for row in report.table(results)[1:4]] == ["9†", "9*", "9*"]
    assert any("UNVERIFIED" in note for note in report.notes(results))


def test_standard_finance_has_macro_f1():
    results = finance_results(lambda e: {"model": answers(5, 100)}, suite="standard")
    assert "macro-F1" in report.table(results)[0]
    official = finance_results(lambda e: {"model": answers(5, 100)})
    assert "macro-F1" not in report.table(official)[0]


def test_markdown_has_as_many_cells_in_every_line():
    results = finance_results(lambda e: {"base": answers(1, 9), "checkpoint": answers(2, 9)})
    results["deviations"] = ["quantization 0 (official: 4)"]
    lines = report.markdown(results).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 6
    assert len({row.count("|") for row in rows}) == 1
    assert "- Not as the official scorer: quantization 0 (official: 4)." in lines


def test_aligned_columns_are_of_one_width():
    text = report.aligned([["a", "b"], ["long", "1"], ["x", "22222"]])
    assert len({len(line) for line in text.splitlines()}) == 1
