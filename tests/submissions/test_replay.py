"""submissions.replay: honest rounds come out the same, false ones do not, an app stays inside."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from flowertune.base.errors import UserError
from flowertune.methods.noise_key import NoiseKey, for_replay, read_key
from flowertune.run import chain, first_adapter
from submissions import layout
from submissions.archive import opened
from submissions.replay import cli, draw
from submissions.replay.compare import DIFFERS, FAILED, OPEN, SAME, WITHIN, Claimed, compare
from submissions.replay.inputs import find_inputs
from submissions.replay.record import read_record
from submissions.replay.replay import Asked, Replay, replay
from submissions.replay.sandbox import Again, Bounds
from submissions.replay.states import Source, take_state
from tests.methods import apply, copy_of_app, diffs, edit
from tests.submissions.replays import (
    ROUNDS,
    bundle_of,
    model,
    multiply,
    place,
    rechained,
    settings,
    trained,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandboxes are Linux's")
SMALL = Bounds(memory=4 * 2**30, hours=0.05, threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Runs in this process add up as replays do, which are told how many threads to have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def honest() -> Path:
    return trained("honest")


@pytest.fixture(scope="module")
def honest_bundle(honest) -> Path:
    return bundle_of(honest, place() / "honest-bundle")


def again(
    bundle: Path, states: Path | None, *rounds: int, bounds: Bounds = SMALL, **more: Any
) -> Replay:
    """Train these rounds of a bundle again."""
    asked = Asked(0, "word", states, model(), place() / "rows.jsonl", bounds, gpu=False, **more)
    with opened(bundle) as one:
        return replay(one, asked, lambda text: None, rounds or None)


def sentences(found: Replay) -> str:
    return " ".join(d.sentence for result in found.results for d in result.differences)


# --- which rounds ---


def test_first_and_last_are_always_drawn_and_the_others_depend_on_bundle_and_word():
    seed = draw.seed_of("a" * 64, "word")
    rounds = draw.drawn_rounds(200, 3, seed)
    assert len(rounds) == 5
    assert rounds[0] == 1
    assert rounds[-1] == 200
    assert rounds == draw.drawn_rounds(200, 3, seed)
    others = {tuple(draw.drawn_rounds(200, 3, draw.seed_of("a" * 64, f"{n}"))) for n in range(20)}
    others |= {
        tuple(draw.drawn_rounds(200, 3, draw.seed_of(f"{n:064}", "word"))) for n in range(20)
    }
    assert len(others) == 40
    counts = [r for n in range(400) for r in draw.drawn_rounds(12, 2, draw.seed_of("b", f"{n}"))]
    assert all(50 < counts.count(r) < 115 for r in range(2, 12)), "each round is as likely: 80"


def test_a_short_run_is_drawn_whole():
    assert draw.drawn_rounds(1, 3, "s") == [1]
    assert draw.drawn_rounds(2, 3, "s") == [1, 2]
    assert draw.drawn_rounds(4, 9, "s") == [1, 2, 3, 4]
    assert draw.states_of([1, 5, 9]) == [0, 1, 4, 5, 8, 9]


def test_the_chance_to_see_false_rounds():
    assert draw.chance(0.1, 3) == pytest.approx(1 - 0.9**3)
    assert dict(draw.chances(200, 3))[0.2] == pytest.approx(0.488)
    assert set(dict(draw.chances(5, 3)).values()) == {1.0}


# --- states that are handed over ---


def test_states_are_taken_from_a_folder_and_from_a_zip(honest, honest_bundle, tmp_path):
    with opened(honest_bundle) as bundle:
        records = read_record(bundle).records
    zipped = tmp_path / "states.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in sorted((honest / "state").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(honest).as_posix())
    for source in (honest, honest / "state", zipped):
        folder = tmp_path / f"taken-{source.name}"
        state = take_state(Source(source), 2, records, folder)
        assert state is not None
        assert state.body["round"] == 2
        assert take_state(Source(source), 9, {9: {}}, folder) is None


@pytest.mark.parametrize("name", ["adapter.safetensors", "strategy.safetensors", "state.json"])
def test_an_edited_state_is_named(honest, honest_bundle, tmp_path, name):
    shutil.copytree(honest / "state", tmp_path / "state")
    file = tmp_path / "state" / "round_2" / name
    if name == "state.json":
        body = json.loads(file.read_text())
        file.write_text(json.dumps({**body, "state-key": "9"}))
    elif name == "adapter.safetensors":
        multiply(file, 1.5, only=1)
    else:
        save_file({"kept": torch.ones(1)}, file)
    found = again(honest_bundle, tmp_path, 2)
    assert not found.good
    assert found.results == []
    assert f"round_2/{name} is not what the chain" in found.errors[0]


def test_a_link_in_place_of_a_state_is_not_followed(honest, honest_bundle, tmp_path):
    with opened(honest_bundle) as bundle:
        records = read_record(bundle).records
    (tmp_path / "one" / "state").mkdir(parents=True)
    (tmp_path / "one" / "state" / "round_2").symlink_to(honest / "state" / "round_2")
    with pytest.raises(UserError, match="behind a symbolic link"):
        take_state(Source(tmp_path / "one"), 2, records, tmp_path / "taken")
    shutil.copytree(honest / "state" / "round_2", tmp_path / "two" / "round_2")
    (tmp_path / "two" / "round_2" / "state.json").unlink()
    (tmp_path / "two" / "round_2" / "state.json").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="symbolic link"):
        take_state(Source(tmp_path / "two"), 2, records, tmp_path / "taken2")


def test_states_that_are_missing_are_asked_for(honest, honest_bundle, tmp_path):
    shutil.copytree(honest / "state" / "round_1", tmp_path / "state" / "round_1")
    with pytest.raises(UserError, match="state/round_2, state/round_3 are missing"):
        again(honest_bundle, tmp_path, 1, 2, 3, 4)


# --- what differs, and by how much; without a sandbox ---


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Any:
    """What an honest replay of round 2 leaves, made of the run itself."""
    import numpy
    from safetensors.numpy import save_file as save_arrays

    folder = tmp_path_factory.mktemp("left")
    replies: dict[str, Any] = {}

    def look(server_round: int, partition: int, reply: Any) -> Any:
        if server_round == 2:
            (record,) = reply.content.array_records.values()
            arrays = {
                f"arrays/{name}": numpy.frombuffer(array.data, numpy.uint8)
                for name, array in record.items()
            }
            kinds = {
                f"arrays/{name}": ["arrays", name, a.dtype, list(a.shape), a.stype]
                for name, a in record.items()
            }
            save_arrays(arrays, folder / f"reply_{partition}.safetensors")
            metrics = dict(reply.content.metric_records["metrics"])
            rows = json.loads(reply.content.config_records["client"]["rows"])
            replies[str(partition)] = {"arrays": kinds, "metrics": metrics, "rows": rows}
        return reply

    run = trained("looked-at", tamper=look)
    for name in ("adapter.safetensors", "strategy.safetensors"):
        shutil.copy(run / "state" / "round_2" / name, folder / name)
    lines = [json.loads(text) for text in (run / "rounds.jsonl").read_text().splitlines()]
    entries = [json.loads(text) for text in (run / "ledger.jsonl").read_text().splitlines()]
    said = {
        "asked": lines[1]["partitions"],
        "digests": {},
        "replies": replies,
        "line": lines[1],
        "ledger": [entry for entry in entries if entry["round"] == 2],
    }
    (folder / "record.json").write_text(json.dumps(said))
    return run, folder


def compared(
    left: Any, tmp_path: Path, change: Callable[[Path, dict], object], **claims: Any
) -> Any:
    """Compare round 2 with what it left, once that was changed."""
    run, folder = left
    own = tmp_path / "again"
    shutil.copytree(folder, own)
    said = json.loads((own / "record.json").read_text())
    change(own, said)
    (own / "record.json").write_text(json.dumps(said))
    with opened(bundle_of(run, tmp_path / "bundle")) as bundle:
        record = read_record(bundle)
    states = [take_state(Source(run), n, record.records, tmp_path / "states") for n in (1, 2)]
    given = {"before": states[0], "after": states[1], **claims}
    after = given["after"]
    adapter = after.folder / "adapter.safetensors" if after else None
    claimed = Claimed(given["before"], after, adapter, 0, 0.01, 1e-4)
    return compare(record, 2, Again(own), claimed)


def test_an_equal_round_has_the_same_bits(left, tmp_path):
    found = compared(left, tmp_path, lambda folder, said: None)
    assert (found.verdict, found.differences) == (SAME, [])


def test_a_rounding_error_is_within_the_tolerance(left, tmp_path):
    found = compared(left, tmp_path, lambda f, s: multiply(f / "adapter.safetensors", 1 + 1e-6))
    assert found.verdict == WITHIN
    assert 0 < found.update < 0.01
    assert found.differences[0].tensor == min(load_file(left[1] / "adapter.safetensors"))


def test_a_larger_difference_is_not(left, tmp_path):
    found = compared(left, tmp_path, lambda f, s: multiply(f / "adapter.safetensors", 1.02))
    assert found.verdict == DIFFERS
    assert found.update > 0.01


def test_without_states_nothing_says_by_how_much(left, tmp_path):
    found = compared(
        left, tmp_path, lambda f, s: multiply(f / "adapter.safetensors", 1 + 1e-6), after=None
    )
    assert (found.verdict, found.update) == (OPEN, None)


def _other_reply(folder: Path, said: dict) -> None:
    file = folder / f"reply_{min(said['replies'])}.safetensors"
    tensors = load_file(file)
    name = max(tensors)
    tensors[name][-1] ^= 1
    save_file(tensors, file)


def _other_rows(folder: Path, said: dict) -> None:
    said["replies"][min(said["replies"])]["rows"]["sha256"] = "0" * 64


def _other_loss(folder: Path, said: dict) -> None:
    said["line"]["train-loss"] *= 1.01


def _other_clients(folder: Path, said: dict) -> None:
    said["asked"] = [p for p in range(4) if p not in said["asked"]]


def _other_bytes(folder: Path, said: dict) -> None:
    said["ledger"][0]["bytes"] += 1


def _other_examples(folder: Path, said: dict) -> None:
    said["replies"][min(said["replies"])]["metrics"]["num-examples"] += 1


def _no_reply(folder: Path, said: dict) -> None:
    del said["replies"][min(said["replies"])]


def _other_strategy(folder: Path, said: dict) -> None:
    save_file({"momentum": torch.ones(3)}, folder / "strategy.safetensors")


def _other_shape(folder: Path, said: dict) -> None:
    tensors = load_file(folder / "adapter.safetensors")
    tensors[min(tensors)] = torch.zeros(3)
    save_file(tensors, folder / "adapter.safetensors")


@pytest.mark.parametrize(
    ("change", "what", "says"),
    [
        (_other_rows, "rows", "the data are not the same"),
        (_other_loss, "loss", "the mean loss was"),
        (_other_clients, "clients", "than the app in the bundle chooses"),
        (_other_bytes, "bytes", "the ledger has"),
        (_other_examples, "reply", "counted 10 examples in the run, and 11 now"),
        (_no_reply, "reply", "replied in the run, and not now"),
        (_other_strategy, "strategy", "momentum, which is missing before"),
        (_other_shape, "adapter", "which was float32 (32, 32) and is float32 (3,)"),
    ],
)  # fmt: skip
def test_what_differs_first_is_named(left, tmp_path, change, what, says):
    found = compared(left, tmp_path, change)
    assert found.verdict == DIFFERS
    assert found.differences[0].what == what
    assert says in found.differences[0].sentence


def test_a_reply_is_judged_by_its_tensors_and_not_by_what_the_app_says(left, tmp_path):
    found = compared(left, tmp_path, _other_reply)
    (difference,) = found.differences
    assert difference.what == "reply"
    assert "replies with other bits" in difference.sentence


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"asked": 1}', "{" * 100, '{"asked": [], "asked": []}', "\0"]
)
def test_a_malformed_record_is_a_sentence(left, tmp_path, text):
    def change(folder: Path, said: dict) -> None:
        said.clear()

    run, folder = left
    own = tmp_path / "again"
    shutil.copytree(folder, own)
    (own / "record.json").write_text(text)
    with opened(bundle_of(run, tmp_path / "bundle")) as bundle:
        record = read_record(bundle)
    found = compare(record, 2, Again(own), Claimed(None, None, None, 0, 0.01, 1e-4))
    assert found.verdict == FAILED
    assert "record.json" in found.differences[0].sentence or "left" in found.differences[0].sentence


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"PK\3\4", (10**12).to_bytes(8, "little")])
def test_tensors_that_are_none_are_a_sentence(left, tmp_path, data):
    found = compared(left, tmp_path, lambda f, s: (f / "adapter.safetensors").write_bytes(data))
    assert found.verdict == FAILED
    assert "safetensors" in found.differences[0].sentence


# --- where model and rows appear ---


@pytest.mark.parametrize(
    "name", ["/usr/lib", "/", "/proc/self", "/dev/shm/x", "/replay/app", sys.prefix, "/etc/passwd"]
)
def test_a_model_is_not_shown_where_the_sandbox_needs_its_own(tmp_path, name):
    with pytest.raises(UserError, match="a path that the sandbox itself needs"):
        find_inputs({**settings("x"), "model.name": name}, tmp_path, tmp_path, model(), None)


def test_a_model_of_the_hub_is_shown_as_in_the_hubs_cache(tmp_path):
    cfg = {**settings("x"), "model.name": "owner/name", "model.revision": "main"}
    found = find_inputs(cfg, tmp_path, tmp_path, model(), place() / "rows.jsonl")
    root = "/replay/hub/models--owner--name"
    (commit,) = {path.split("/")[5] for path in found.shown if "/snapshots/" in path}
    assert Path(found.shown[f"{root}/refs/main"]).read_text() == commit
    assert all(os.stat(path).st_mode & 0o004 for path in found.shown.values())


def test_rows_and_model_on_the_participants_machine_have_to_be_given(tmp_path):
    with pytest.raises(UserError, match="--model"):
        find_inputs(settings("x"), tmp_path, tmp_path, None, None)
    with pytest.raises(UserError, match="--data"):
        find_inputs(settings("x"), tmp_path, tmp_path, model(), None)


# --- the command ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--draw", "-1"], "--draw is -1"),
        (["--hours", "0"], "--hours is 0"),
        (["--key", "k"], "name it with --report"),
        (["--nonce", "a\nb"], "--nonce holds control characters"),
    ],
)
def test_wrong_options_are_one_sentence(honest_bundle, words, says, capsys):
    assert cli.main([str(honest_bundle), *words]) == 2
    assert says in capsys.readouterr().err


def test_the_draw_is_printed_so_that_it_can_be_repeated(honest_bundle, capsys):
    assert cli.main([str(honest_bundle), "--draw", "1", "--list"]) == 0
    first = capsys.readouterr().out
    nonce = first.partition("--nonce ")[2].split()[0]
    assert cli.main([str(honest_bundle), "--draw", "1", "--list", "--nonce", nonce]) == 0
    assert capsys.readouterr().out == first
    assert "f is 10%" in first
    assert "state/round_0 state/round_1" in first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: (b / layout.CHAIN).unlink(), "chain.jsonl is missing"),
        (lambda b: _drop_line(b / layout.CHAIN, 2), "does not follow the line before it"),
        (lambda b: _drop_line(b / layout.ROUNDS, 1), "does not hold the rounds from 1"),
        (lambda b: (b / layout.LEDGER).write_text("{}\n"), "no line that a run writes"),
    ],
)
def test_a_bundle_without_a_whole_run_is_refused(honest_bundle, tmp_path, change, says, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(honest_bundle, folder)
    change(folder)
    assert cli.main([str(folder), "--list"]) == 2
    assert says in capsys.readouterr().err


def _drop_line(file: Path, number: int) -> None:
    lines = file.read_text().splitlines(keepends=True)
    del lines[number]
    file.write_text("".join(lines))


# --- real replays, in the sandbox ---


def test_an_honest_round_is_trained_again_to_the_same_bits(honest, honest_bundle):
    found = again(honest_bundle, honest, 3)
    assert [r.verdict for r in found.results] == [SAME], sentences(found)
    assert found.good


@pytest.mark.full
def test_every_round_of_an_honest_run(honest, honest_bundle):
    found = again(honest_bundle, honest, every=True)
    assert [(r.server_round, r.verdict) for r in found.results] == [
        (n, SAME) for n in range(1, ROUNDS + 1)
    ], sentences(found)


@pytest.mark.full
def test_a_strategy_of_ones_own_is_run_from_what_it_kept(tmp_path):
    app = copy_of_app(tmp_path)
    apply(app, next(diff for name, diff in diffs().items() if "FedAvgM" in name))
    run = trained("momentum", app=app)
    found = again(bundle_of(run, tmp_path / "bundle", app), run, 1, 3)
    assert [r.verdict for r in found.results] == [SAME, SAME], sentences(found)


@pytest.mark.full
@pytest.mark.parametrize(
    "changes",
    [
        {"aggregation.mode": "layerwise"},
        {"train.transport": "float16"},
        {"model.lora.peft-lora-r": 4},
        {"train.evaluate-every": 2, "train.held-out": 0.3},
        {"static.partitioner.name": "square"},
    ],
    ids=str,
)
def test_other_ways_to_run(tmp_path, changes):
    name = next(iter(changes))
    run = trained(f"way-{name}", **changes)
    found = again(bundle_of(run, tmp_path / "bundle"), run, 1, 2)
    assert [r.verdict for r in found.results] == [SAME, SAME], sentences(found)


@pytest.mark.full
def test_clients_that_were_lost_are_lost_again(tmp_path):
    lose = lambda n, p, reply: None if n == 2 and p % 2 else reply  # noqa: E731
    run = trained("lost", tamper=lose)
    found = again(bundle_of(run, tmp_path / "bundle"), run, 2, 3)
    assert [r.verdict for r in found.results] == [SAME, SAME], sentences(found)


# --- false ones ---


@pytest.mark.full
def test_a_forged_round_is_seen(honest, tmp_path):
    """A state that no client made, in a chain that fits it: only training shows it."""
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    multiply(run / "state" / "round_2" / "adapter.safetensors", 1.5)
    rechained(run)
    found = again(bundle_of(run, tmp_path / "bundle"), run, 2)
    (result,) = found.results
    assert result.verdict == DIFFERS
    assert [d.what for d in result.differences] == ["adapter"]
    assert result.update is not None
    assert result.update > 0.1


@pytest.mark.full
def test_a_start_from_other_weights_is_seen_in_round_1(tmp_path, monkeypatch):
    plain = first_adapter.first_adapter

    def warm(*given: Any) -> Any:
        adapter, partition = plain(*given)
        return {name: tensor + 0.01 for name, tensor in adapter.items()}, partition

    monkeypatch.setattr("flowertune.run.training.first_adapter", warm)
    run = trained("warm")
    found = again(bundle_of(run, tmp_path / "bundle"), run, 1)
    (result,) = found.results
    assert result.verdict == DIFFERS
    assert "is not the one that settings and seed give" in sentences(found)


@pytest.mark.full
def test_replies_that_no_training_gives_are_seen(tmp_path):
    def better(server_round: int, partition: int, reply: Any) -> Any:
        if server_round == 2:
            arrays = reply.content["arrays"]
            tensors = arrays.to_torch_state_dict()
            reply.content["arrays"] = type(arrays)({n: t * 1.1 for n, t in tensors.items()})
        return reply

    run = trained("better", tamper=better)
    found = again(bundle_of(run, tmp_path / "bundle"), run, 1, 2)
    assert [r.verdict for r in found.results] == [SAME, DIFFERS]
    first = found.results[1].differences[0]
    assert (first.what, first.partition is None) == ("reply", False)


@pytest.mark.full
def test_another_app_than_the_one_that_trained_is_seen(tmp_path):
    app = copy_of_app(tmp_path)
    edit(app, "client_app.py", "torch.optim.AdamW(", "torch.optim.NAdam(")
    run = trained("nadam", app=app)
    bundle = bundle_of(run, tmp_path / "bundle")  # with the template's files
    found = again(bundle, run, 2)
    assert "is not the one that the run was trained with" in found.errors[0]
    assert found.results[0].verdict == DIFFERS


@pytest.mark.full
def test_rows_of_ones_own_are_seen(tmp_path):
    run = trained("rows")
    other = tmp_path / "rows.jsonl"
    other.write_text((place() / "rows.jsonl").read_text().replace("Add one.", "Add two."))
    asked = Asked(0, "word", run, model(), other, SMALL, gpu=False)
    with opened(bundle_of(run, tmp_path / "bundle")) as bundle:
        found = replay(bundle, asked, lambda text: None, [1])
    assert found.results[0].verdict == DIFFERS
    assert "the data are not the same" in sentences(found)


# --- an app that does not want to be replayed ---

PROBE = """
def probe():
    import json, os, pathlib, socket, subprocess, sys
    found = []
    def tried(what, attempt):
        try:
            if attempt() is not False:
                found.append(what)
        except Exception:
            pass
    tried("network", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
    tried("secret", lambda: open({secret!r}).read())
    tried("home", lambda: len(os.listdir({home!r})) > 0)
    tried("environment", lambda: {word!r} in str(dict(os.environ)))
    tried("other processes", lambda: {word!r} in "".join(
        open(f"/proc/{{p}}/environ").read() for p in os.listdir("/proc") if p.isdigit()))
    tried("checkout", lambda: len(os.listdir({tests!r})) > 0)
    for place in {readonly!r}:
        tried(f"write {{place}}", lambda: open(os.path.join(place, "mark"), "w").write("x"))
    tried("future", lambda: {future!r} in "".join(
        p.read_text(errors="ignore") for root in {roots!r} for p in
        pathlib.Path(root).rglob("*.jsonl")))
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", {word!r}],
                     start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found
"""
CALL = """    found = probe()
    if found:
        raise RuntimeError("reached " + ", ".join(found))
    task = app.task(message, context)
"""


@pytest.fixture
def watched(tmp_path, monkeypatch, honest):
    """What an app could reach on this machine; returns words for the probe, and who came."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("secret")
    word = f"word-{os.urandom(8).hex()}"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FLOWERTUNE_TEST_SECRET", word)
    visits: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    visits.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        # The chain's digest of the adapter after round 2, which is what is to be found out.
        future = json.loads((honest / "chain.jsonl").read_text().splitlines()[2])[chain.ADAPTER]
        yield (
            {
                "port": listener.getsockname()[1],
                "secret": str(home / "secret"),
                "home": str(home),
                "word": word,
                "tests": str(Path(__file__).parent),
                "readonly": [
                    "/replay/app", "/replay", "/usr", sys.prefix, str(model()), "/replay/data",
                ],
                "future": future,
            },
            visits,
        )  # fmt: skip


def hostile_app(folder: Path, code: str, call: str = CALL) -> Path:
    app = copy_of_app(folder)
    edit(app, "client_app.py", "    task = app.task(message, context)\n", call)
    edit(app, "client_app.py", "@app.train()\n", f"{code}\n\n@app.train()\n")
    return app


def left_running(word: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if word in (process.info["cmdline"] or []):
            found.append(process.info["pid"])
    return found


@pytest.mark.full
def test_an_app_reaches_nothing_and_leaves_nothing(honest, watched, tmp_path):
    words, visits = watched
    code = PROBE.format(**{**words, "roots": (), "readonly": ()})
    # The control: outside of a sandbox the same code reaches all that can be reached without harm.
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(probe())"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    for what in ("network", "secret", "home", "environment", "checkout"):
        assert what in done.stdout, done
    assert visits
    for pid in left_running(words["word"]):
        psutil.Process(pid).kill()
    visits.clear()
    code = PROBE.format(**words, roots=("/replay", "/tmp"))
    bundle = bundle_of(honest, tmp_path / "bundle", hostile_app(tmp_path, code))
    found = again(bundle, honest, 2)
    assert found.results[0].verdict == SAME, sentences(found)
    assert visits == []
    assert left_running(words["word"]) == []
    assert not [p for p in words["readonly"] if Path(p, "mark").exists()]


@pytest.mark.full
def test_an_app_that_fills_memory_is_ended(honest, tmp_path):
    call = '    hoard = []\n    while True:\n        hoard.append(b"x" * 2**26)\n'
    bundle = bundle_of(honest, tmp_path / "bundle", hostile_app(tmp_path, "", call))
    found = again(bundle, honest, 1, bounds=Bounds(2 * 2**30, 0.05, 1))
    assert found.results[0].verdict == FAILED
    assert "used more than 2 GiB of memory" in sentences(found)


@pytest.mark.full
def test_an_app_that_never_ends_is_ended(honest, tmp_path):
    call = "    import time\n    time.sleep(10_000)\n"
    bundle = bundle_of(honest, tmp_path / "bundle", hostile_app(tmp_path, "", call))
    found = again(bundle, honest, 1, bounds=Bounds(4 * 2**30, 15 / 3600, 1))
    assert found.results[0].verdict == FAILED
    assert "took longer than" in sentences(found)


@pytest.mark.full
def test_an_app_that_answers_in_place_of_training_is_seen(honest, tmp_path):
    """It writes the files that a replay takes, with what it was given, and ends the process."""
    call = """    import json, os, pathlib, shutil
    out = pathlib.Path("/tmp/job/out")
    state = next(pathlib.Path("/replay/given/state").iterdir())
    for name in ("adapter.safetensors", "strategy.safetensors"):
        shutil.copy(state / name, out / name)
    line = json.loads((pathlib.Path("/replay/given") / "rounds.jsonl").read_text().splitlines()[-1])
    (out / "record.json").write_text(json.dumps(
        {"asked": line["partitions"], "digests": {}, "replies": {}, "line": line, "ledger": []}))
    for file in out.iterdir():
        file.chmod(0o644)
    os._exit(0)
"""
    bundle = bundle_of(honest, tmp_path / "bundle", hostile_app(tmp_path, "", call))
    found = again(bundle, honest, 2)
    assert found.results[0].verdict == DIFFERS
    assert {"reply", "adapter"} <= {d.what for d in found.results[0].differences}


@pytest.mark.full
def test_the_command_signs_what_it_found(tmp_path, capsys):
    from submissions.signing.keys import new_key
    from submissions.signing.signature import check_object
    from tests.submissions.bundles import bundle, scored
    from tests.submissions.on_record import on_record

    signer, made = new_key(tmp_path / "key"), scored()
    report = tmp_path / "report.json"
    words = ["--nonce", "word", "--states", str(made.run), "--model", str(made.rules.model)]
    words += ["--data", str(made.rules.rows), "--report", str(report), "--cpu"]
    with on_record():
        assert cli.main([str(bundle()), *words, "--draw", "0", "--key", str(tmp_path / "key")]) == 0
    body = json.loads(report.read_text())
    assert body["tier"] == "replayed"
    assert check_object(body) == signer
    assert [r["round"] for r in body["facts"]["replay"]["results"]] == [1, 3]
    assert "VALID: replayed" in capsys.readouterr().out


def test_an_invalid_bundle_is_not_trained_again(honest_bundle, capsys):
    assert cli.main([str(honest_bundle)]) == 1
    assert "nothing is trained again" in capsys.readouterr().out


@pytest.mark.full
def test_a_run_with_secret_noise_is_replayed_by_the_holder_of_its_key_alone():
    options: dict[str, Any] = {
        "strategy.name": "dp-fedavg",
        "strategy.options": "noise=1, epsilon=1000",
    }
    run = trained("private", **options)
    bundle = bundle_of(run, place() / "private-bundle")
    with pytest.raises(UserError, match="by the key's holder alone, with --noise-key"):
        again(bundle, run, 1)
    (key,) = (place() / "home-private").rglob("noise-keys/*.jsonl")
    found = again(bundle, run, 1, 3, noise_key=key)
    assert [result.verdict for result in found.results] == [SAME, SAME], sentences(found)
    other = place() / "another.key"
    NoiseKey(bytes(32), other).save()
    found = again(bundle, run, 1, noise_key=other)
    assert found.results[0].verdict == DIFFERS


def test_the_noise_of_a_replay_is_that_of_the_run_where_the_sum_differs_in_its_last_bits():
    key = NoiseKey(bytes(32), place() / "third.key")
    key.note("ab" * 32, {"round": 2, "partitions": [0, 3], "noise": 1.0})
    file = place() / "given.key"
    file.touch(0o600)
    file.write_text(for_replay(key))
    given = read_key(file)
    assert given.tag(2, [0, 3], b"another sum") == "ab" * 32
    assert given.tag(2, [0], b"") == key.tag(2, [0], b"") != "ab" * 32
    assert key.tag(2, [0, 3], b"another sum") != "ab" * 32
