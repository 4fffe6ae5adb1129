"""The chain of a run: whole, in order, the same for equal runs, and closed by its manifests."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from flowertune.base.errors import UserError
from flowertune.rules.app_files import app_files, app_record
from flowertune.run.chain import Chain, problem
from flowertune.run.growing import GrowingFile
from flowertune.run.state import load_state, read_lines, states
from tests.apps import rendered
from tests.chains import chain_of, fits_its_run, in_common
from tests.local_grid import folder, run_app
from tests.methods import copy_of_app, edit
from tests.small_runs import small_run

NODES = 6


def lost_in(server_round: int):
    """Clients whose replies are lost in a round."""
    return lambda n, partition, reply: None if n == server_round else reply


@pytest.mark.parametrize(
    "changes",
    [{}, {"train.transport": "int8"}, {"aggregation.mode": "layerwise"}],
    ids=["whole replies", "int8", "layerwise"],
)
def test_a_resumed_run_has_the_chain_of_one_that_was_not_interrupted(cfg, changes):
    cfg |= {**changes, "num-server-rounds": 3}
    run_app(cfg, NODES, 1)
    whole = (
        fits_its_run(folder(cfg, 1))
        if "aggregation.mode" not in changes
        else chain_of(folder(cfg, 1))
    )
    with pytest.raises(UserError, match="of round 3 failed"):
        run_app(cfg, NODES, 2, lost_in(3))
    run = folder(cfg, 2)
    stopped = [record["round"] for record in chain_of(run)]
    assert stopped == [0, 1, 2]
    # As a kill leaves it: a record behind the last one that a state counts, and half of another.
    with (run / "chain.jsonl").open("a") as file:
        file.write(json.dumps({"round": 3}) + '\n{"round"')
    run_app({**cfg, "resume-from": str(run)}, NODES, 9)
    assert in_common(chain_of(run)) == in_common(whole)
    assert all(reply["sha256"] for record in whole for reply in record["replies"].values())


@pytest.fixture
def trained() -> Path:
    """A run of two rounds; copy it to change it."""
    return small_run().folder


def test_it_names_what_it_is_about_and_every_checkpoint_closes_it(trained):
    assert [record["round"] for record in fits_its_run(trained)] == [0, 1, 2]


@pytest.mark.parametrize("how", ["changed", "dropped", "swapped", "cut", "no json", "other"])
def test_a_run_goes_on_from_its_own_chain_only(trained, tmp_path, how):
    run = shutil.copytree(trained, tmp_path / "1")
    file, state = run / "chain.jsonl", load_state(run / "state" / "round_2")
    zero, one, two = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(
        {
            "changed": b"".join((zero, one.replace(b'"examples": 10', b'"examples": 90'), two)),
            "dropped": zero + two,
            "swapped": one + zero + two,
            "cut": zero + one,
            "no json": b"x" * (len(zero) + len(one) + len(two)),
            "other": zero + one + two.replace(b'"round": 2', b'"round": 1'),
        }[how]
    )
    with pytest.raises(UserError, match=r"chain\.jsonl is damaged or was changed: .*round_1"):
        read_lines(
            run / "state" / "round_2", state.body, GrowingFile(run / "rounds.jsonl"),
            GrowingFile(run / "ledger.jsonl"), Chain(file),
        )  # fmt: skip


def test_records_are_of_the_right_form_and_in_order(trained):
    zero, one, two = chain_of(trained)
    again = {**one, "previous": two["previous"]}
    assert problem([zero, one, again, two]) is None  # a round that was saved twice
    assert problem([]) == "it has no record"
    assert problem([one, two]) == "its line 1 is of round 1, after round None"
    assert problem([zero, two]) == "its line 2 is of round 2, after round 0"
    assert problem([zero, one, zero]) == "its line 3 is of round 0, after round 1"
    for key in one:
        odd = {**one, key: [7]}
        lacks = {name: value for name, value in one.items() if name != key}
        for record in (odd, lacks):
            assert problem([zero, record]) == "its line 2 is no record of a round"


def test_a_chain_goes_on_where_a_state_counts_it(tmp_path):
    chain, about = (
        Chain(tmp_path / "chain.jsonl"),
        dict.fromkeys(
            ("adapter-sha256", "strategy-sha256", "state-sha256", "ledger-sha256"), "0" * 64
        ),
    )
    about |= {"line-sha256": None, "model-sha256": None, "chosen": None, "replies": {}}
    assert chain.head() is None
    chain.add(0, about)
    chain.add(1, about)
    chain.manifest = "a" * 64
    mark, head = chain.mark(), chain.head()
    chain.add(2, about)
    later = Chain(tmp_path / "chain.jsonl")
    later.go_on(mark)
    later.file.cut()
    assert later.head() == head
    later.add(2, about)
    assert later.head() == chain.head()
    assert (
        json.loads((tmp_path / "chain.jsonl").read_text().splitlines()[2])["previous-manifest"]
        == "a" * 64
    )


def test_a_choice_after_the_last_round_is_in_the_chain_once(tmp_path, trained):
    *_, last = chain_of(trained)
    file = shutil.copy(trained / "chain.jsonl", tmp_path)
    chain = Chain(Path(file))
    state = json.loads((trained / "state" / "round_2" / "state.json").read_text())
    chain.go_on({**state["chain"], "lines": 3})
    choice = {"round": 1, "rows": 4, "loss": 1.5}
    chain.close(None)
    chain.close(choice)
    chain.close(choice)
    records = [json.loads(line) for line in Path(file).read_text().splitlines()]
    assert problem(records) is None
    assert len(records) == 4
    kept = ("adapter-sha256", "strategy-sha256", "state-sha256", "ledger-sha256", "replies")
    assert all(records[3][key] == last[key] for key in kept)
    assert records[3]["chosen"] == choice
    assert (
        records[3]["previous-manifest"]
        == json.loads((trained / "peft_2" / "manifest.json").read_text())["manifest-sha256"]
    )


def test_what_ran_is_on_record(trained):
    about = json.loads((trained / "run.json").read_text())
    manifest = json.loads((trained / "peft_2" / "manifest.json").read_text())
    for body in (about, manifest):
        assert body["app"] == app_record(app_files(rendered("finance")))
        assert body["environment"]["packages"]["torch"] == version("torch")
        assert body["hardware"]["cores"] >= 1
    assert "flowertune_finance/strategy.py" in about["app"]["files"]
    assert not [name for name in about["app"]["files"] if name.startswith("results")]


def test_an_app_whose_code_changed_makes_a_resumed_run_unofficial(cfg, tmp_path):
    app = copy_of_app(tmp_path)
    with pytest.raises(UserError, match="of round 2 failed"):
        run_app(cfg, NODES, 1, lost_in(2), app)
    run = folder(cfg, 1)
    edit(app, "models.py", '"""Return the base model\'s tokenizer."""', '"""The tokenizer."""')
    (app / "README.md").write_text("What I do.")
    run_app({**cfg, "resume-from": str(run)}, NODES, 2, app=app)
    about = json.loads((run / "run.json").read_text())
    assert {
        "key": "the app's code",
        "given": "flowertune_finance/models.py changed",
        "locked": "as the run was started with it",
    } in about["differences"]


def test_states_stay_unless_fewer_are_asked_for(trained):
    assert sorted(states(trained)) == [0, 1, 2]
