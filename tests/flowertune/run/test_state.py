"""A run's state on disk: what was changed there is named, what is half there is passed over."""

import json
import shutil

import pytest
import torch

from flowertune.base.errors import UserError
from flowertune.base.hashing import json_sha256
from flowertune.comms.partition_files import RESIDUAL, PartitionFiles, branched
from flowertune.run import state
from flowertune.run.origin import resume_command
from flowertune.run.state import (
    State,
    choose_state,
    delete_states,
    load_state,
    read_body,
    save_state,
    states,
)
from tests.runs import run_of_two_states

FILES = ("adapter.safetensors", "strategy.safetensors", "state.json")


@pytest.fixture
def run(tmp_path):
    return run_of_two_states(tmp_path / "7")


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_gets_into_a_run(run, name):
    path = run / "state" / "round_2"
    right = (path / name).read_bytes()
    for place in range(0, len(right), max(1, len(right) // 60)):
        flipped = bytearray(right)
        flipped[place] ^= 1 << place % 8
        (path / name).write_bytes(flipped)
        with pytest.raises(UserError, match=r"/round_2/.* is damaged or was changed: .*round_1"):
            load_state(path)
    (path / name).write_bytes(right)
    assert load_state(path).adapter["a"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("ledger", []), ("differences", [{"key": "x"}]), ("run-key", "8"), ("settings", {"seed": 3}),
     ("round", 3), ("more", 1)],
)  # fmt: skip
def test_a_part_that_was_edited_is_named(run, key, value):
    file = run / "state" / "round_2" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(UserError, match=f"its '{key}' is not what the run saved"):
        read_body(file.parent)


@pytest.mark.parametrize(
    ("key", "value"),
    [("settings", []), ("settings", None), ("ledger", [{}]), ("ledger", {"lines": 1}),
     ("rounds", 7), ("rounds", {"lines": -1}),
     ("chain", {"lines": 1, "bytes": 1, "sha256": "0" * 64, "manifest": 1}),
     ("run-key", 8), ("run-ids", "7"), ("state-key", "a\nb"),
     ("federation", {"held": 1}),
     ("differences", [{"key": "x"}]), ("library", {}), ("adapter-config", []),
     ("app", {"files": {"a.py": 1}, "sha256": "0"}),
     ("rows", {"a": {"dataset": "d", "revision": "m", "rows": 1, "unique-rows": 1,
                     "sha256": "0" * 64}}),
     ("rows", {"0": {}}), ("bytes-per-round", "much"), ("started", 1)],
)  # fmt: skip
def test_a_part_of_another_shape_is_named_where_its_sum_is_right(run, key, value):
    path = run / "state" / "round_2"
    body = read_body(path)
    for changed in ({**body, key: value}, {k: v for k, v in body.items() if k != key}):
        sums = {k: v for k, v in body["sha256"].items() if k in FILES}
        changed = {k: v for k, v in changed.items() if k != "sha256"}
        sums |= {k: json_sha256([v]) for k, v in changed.items()}
        (path / "state.json").write_text(json.dumps({**changed, "sha256": sums}))
        with pytest.raises(UserError, match=f"damaged or was changed: it.* '{key}'"):
            read_body(path)


@pytest.mark.parametrize("text", ["", "[]", "7", '{"sha256": 1}', "[" * 100_000, "\udcff"])
def test_what_is_no_state_is_a_sentence(run, text):
    file = run / "state" / "round_2" / "state.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="it is no state of a run"):
        read_body(file.parent)


def test_a_state_of_another_version_is_named(run, monkeypatch):
    monkeypatch.setattr(state, "VERSION", 5)
    with pytest.raises(UserError, match="another version of the library wrote it"):
        read_body(run / "state" / "round_2")


def test_another_rounds_adapter_or_folder_is_named(run):
    one, two = run / "state" / "round_1", run / "state" / "round_2"
    shutil.copy(one / FILES[0], two / FILES[0])
    with pytest.raises(UserError, match=r"round_2/adapter\.safetensors .*: its sha256 is"):
        load_state(two)
    shutil.rmtree(two)
    one.rename(two)
    with pytest.raises(UserError, match="it is the state of round 1; set resume-from"):
        load_state(two)


def test_a_state_that_is_not_whole_is_passed_over(run, caplog):
    (run / "state" / "round_99").mkdir()
    (run / "state" / "round_2" / FILES[1]).unlink()
    (run / "state" / "round_007").mkdir()
    assert choose_state(run, None).name == "round_1"
    assert "round_99 is incomplete (it holds no state.json) and is passed over" in caplog.text
    assert "round_2 is incomplete (it holds no strategy.safetensors)" in caplog.text
    with pytest.raises(UserError, match=r"no strategy\.safetensors; set resume-from to .*_1'"):
        choose_state(run, 2)
    shutil.rmtree(run / "state" / "round_1")
    with pytest.raises(UserError, match="holds no state"):
        choose_state(run, None)


@pytest.mark.parametrize(("kept", "stay"), [(0, [1, 2, 3, 4, 5]), (3, [3, 4, 5])])
def test_as_many_states_stay_as_are_asked_for(run, kept, stay):
    body = {k: v for k, v in read_body(states(run)[2]).items() if k != "sha256"}
    for n in (3, 4, 5):
        save_state(run, State(n, {}, {}, body), kept)
    assert sorted(states(run)) == stay
    save_state(run, State(4, {"a": torch.ones(1)}, {}, body), kept)
    assert load_state(states(run)[4]).adapter


def test_states_of_later_rounds_go_and_so_do_those_too_many(run):
    body = {k: v for k, v in read_body(states(run)[2]).items() if k != "sha256"}
    for n in range(3, 9):
        save_state(run, State(n, {}, {}, body))
    delete_states(run, 7)
    assert sorted(states(run)) == [1, 2, 3, 4, 5, 6, 7]
    delete_states(run, 6, 3)
    assert sorted(states(run)) == [4, 5, 6]


def test_the_command_that_goes_on_is_whole(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resume_command(run) == "flwr run . --stream --run-config \"resume-from='7'\""
    assert resume_command(run, tmp_path / "my app") == (
        f"flwr run '{tmp_path / 'my app'}' --stream --run-config \"resume-from='{run}'\""
    )
    spaced = run.rename(tmp_path / "it's 7")
    assert resume_command(spaced) == (
        "flwr run . --stream --run-config 'resume-from=\"it'\"'\"'s 7\"'"
    )
    assert resume_command(tmp_path / "none") is None and resume_command(tmp_path) is None


@pytest.mark.parametrize("key", ["..", "../x", "a/b", "", "1 ../2@3", "1 2@x", "1 2"])
def test_a_run_key_never_leaves_its_folder(key):
    with pytest.raises(UserError, match="state-key of the message is"):
        PartitionFiles(key, 0, RESIDUAL)


def test_a_run_that_goes_on_keeps_files_of_its_own(tmp_path):
    def files(key):
        return PartitionFiles(key, 0, RESIDUAL)

    for n in (1, 2, 3, 4):
        files("1").keep(n, {"w": torch.tensor([float(n)])}, last_round=n - 1)
    second, third = branched("2", "1", 3), branched("3", branched("2", "1", 3), 5)
    assert files(second).load(3)["w"].item() == 3 and files(second).load(9)["w"].item() == 3
    for n in (4, 5, 6):
        files(second).keep(n, {"w": torch.tensor([10.0 * n])}, last_round=n - 1)
    assert files("1").load(4)["w"].item() == 4 and files("1").load(1)["w"].item() == 1
    assert files(third).load(9)["w"].item() == 50
    damaged = files(second).rounds()[6]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=r"residual_6\.safetensors is not what this client kept"):
        files(second).load(6)
