"""dp-fedavg: its numbers, its noise, what it counts, and that its key gets nowhere."""

import base64
import hashlib
import hmac
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from flowertune.base.errors import UserError
from flowertune.methods import noise_key, privacy
from flowertune.methods.dp_fedavg import check
from flowertune.methods.noise_key import NoiseKey, key_named, read_key
from tests.apps import rendered, tiny_settings
from tests.flowertune.methods.small import (
    FLOAT32,
    A,
    B,
    Rounds,
    flat,
    one_round,
    problem,
    relative,
    shape,
)
from tests.methods import run

NODES, ROUNDS = 4, 3
SECRET = bytes(range(100, 132))
# The field's table, of dp-accounting 0.6: noise multiplier, rounds, epsilon at delta = 1e-5.
TABLE = [
    (1, 200, 166.04), (2, 200, 57.30), (5, 200, 16.51), (10, 200, 7.08),
    (1, 10, 19.05), (2, 10, 8.08), (5, 10, 2.81), (10, 10, 1.31),
]  # fmt: skip
QUIET = "noise=1e-9, epsilon=1e30"  # of which a float32 shows nothing


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    monkeypatch.delenv(noise_key.GIVEN, raising=False)
    return tmp_path / "flwr-home"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NoiseKey:
    """A key that is known, for all servers of a test."""
    file = tmp_path / "noise.key"
    NoiseKey(SECRET, file).save()
    monkeypatch.setenv(noise_key.GIVEN, str(file))
    return NoiseKey(SECRET, file)


@pytest.mark.parametrize("clip", [0.5, 2.4, 100.0])
def test_the_sum_of_clipped_updates_by_the_clients_that_were_asked(clip):
    a0, b0, a, b = problem()
    start = flat({A: a0, B: b0})
    updates = [flat({A: x, B: y}) - start for x, y in zip(a, b, strict=True)]
    norms = [np.linalg.norm(update) for update in updates]
    assert min(norms) < 2.4 < max(norms)  # one bound cuts some of them
    cut = [u * min(1, clip / norm) for u, norm in zip(updates, norms, strict=True)]
    made, _ = one_round("dp-fedavg", f"clip={clip}, {QUIET}")
    assert relative(flat(made), start + sum(cut) / 3) < FLOAT32


def test_examples_do_not_weigh_and_who_is_missing_adds_nothing():
    a0, b0, a, b = problem()
    rounds = Rounds("dp-fedavg", f"clip=100, {QUIET}", clients=4, adapter={A: a0, B: b0})
    messages = rounds.ask
    rounds.ask = lambda: messages()[:3]  # type: ignore[method-assign]
    made = rounds.round([{A: x, B: y} for x, y in zip(a, b, strict=True)], [1, 10, 10**6])
    moved = sum(flat({A: x - a0, B: y - b0}) for x, y in zip(a, b, strict=True)) / 4
    wanted = flat({A: a0, B: b0}) + moved
    assert relative(flat(made), wanted) < FLOAT32


def released(text: str, seed: int = 0, rounds: int = 1) -> tuple[list[np.ndarray], Rounds]:
    """K times what each round adds where clients change nothing: noise alone."""
    a0, b0, _, _, examples = shape(160, 140, 16, 3, seed)
    run, found = Rounds("dp-fedavg", text, adapter={A: a0, B: b0}), []
    for _ in range(rounds):
        before = dict(run.adapter)
        run.round([{A: before[A], B: before[B]}] * 3, examples)
        found.append((flat(run.adapter) - flat(before)) * 3)
    return found, run


def test_the_noise_is_normal_and_of_the_size_that_was_accounted(key):
    from scipy import stats

    (one, two), _ = released("clip=0.5, noise=4, epsilon=1e9", rounds=2)
    for noise in (one / 2, two / 2):
        assert noise.std() == pytest.approx(1, abs=0.03) and abs(noise.mean()) < 0.05
        assert stats.kstest(noise, "norm").pvalue > 0.01
    half = one.size // 2
    for other in (two, np.roll(one, 1), np.roll(one, half)):  # rounds, values, tensors
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    (of_another_key,), _ = released("clip=0.5, noise=4, epsilon=1e9", rounds=1)
    assert relative(of_another_key, one) == 0  # of the same key: the same release
    key.file.unlink()
    NoiseKey(bytes(32), key.file).save()
    (of_another_key,), _ = released("clip=0.5, noise=4, epsilon=1e9", rounds=1)
    assert abs(np.corrcoef(one, of_another_key)[0, 1]) < 0.05


def test_another_sum_never_has_the_same_noise(key):
    """Else the difference of two releases of a round would show what a client did."""
    a0, b0, a, b = problem()
    found = []
    for moved in (0.0, 1e-6):
        run = Rounds("dp-fedavg", "clip=100, noise=1, epsilon=1e9", adapter={A: a0, B: b0})
        trained = [{A: x + moved, B: y} for x, y in zip(a, b, strict=True)]
        found += [flat(run.round(trained)), run.server.tag]
    assert found[1] != found[3]
    assert np.abs(found[0] - found[2]).max() > 1  # 1e-6 by itself


@pytest.mark.parametrize(("noise", "rounds", "wanted"), TABLE)
def test_epsilon_is_that_of_the_reference_table(noise, rounds, wanted):
    assert privacy.epsilon([noise] * rounds, 1e-5) == pytest.approx(wanted, abs=0.006)
    within = privacy.releases_within(wanted + 0.006, noise, 1e-5)
    assert within == rounds
    # An independent bound: the Gaussian mechanism's own curve is below any accountant's.
    assert privacy.epsilon([noise] * rounds, 1e-5) > exact_epsilon(rounds**0.5 / noise, 1e-5)


def exact_epsilon(mu: float, delta: float) -> float:
    """The least epsilon of a Gaussian mechanism (Balle and Wang, 2018, theorem 8)."""
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    def off(epsilon: float) -> float:
        return (
            np.exp(log_ndtr(mu / 2 - epsilon / mu))
            - np.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu))
            - delta
        )

    return float(brentq(off, 0, 1000))  # type: ignore[arg-type]


def test_releases_are_counted_where_the_key_is_and_alike_ones_once(key):
    budget = privacy.Budget(key, epsilon=8.0, delta=1e-5, noise=2.0)
    assert [budget.stop_before(n) for n in (1, 2)] == [None, None]
    assert budget.release(1, [0, 2], "aa" * 32) is None
    assert budget.release(1, [0, 2], "aa" * 32) is None  # a round that was done again
    assert len(key.releases) == 1
    assert budget.release(1, [0], "bb" * 32) is None  # and came out otherwise
    assert len(read_key(key.file).releases) == 2
    assert budget.record(1)["epsilon"] == privacy.epsilon([2.0, 2.0], 1e-5)
    for n in range(2, 9):
        assert budget.release(n, [0], f"{n:064x}") is None
    assert budget.record(8)["releases"] == 9 and budget.record(8)["epsilon"] < 8
    assert "would pass epsilon=8" in str(budget.stop_before(9))
    # What was released may be released again, and nothing else.
    assert budget.stop_before(8) is None and budget.release(8, [0], f"{8:064x}") is None
    assert "would pass epsilon=8" in str(budget.release(8, [0], "cc" * 32))
    assert len(read_key(key.file).releases) == 9
    # A key without its record: each finished round counts.
    bare = privacy.Budget(NoiseKey(SECRET, key.file), 8.0, 1e-5, 2.0)
    assert bare.record(7)["releases"] == 7 and bare.stop_before(10)


def test_the_file_of_a_key_is_its_owners_alone(home):
    server = Rounds("dp-fedavg").server
    assert not home.exists()
    state = server.state_dict()
    (file,) = home.rglob("*.jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.stem == bytes(state["noise-key"].numpy()).hex() == server.key.name
    other = Rounds("dp-fedavg").server
    assert other.key.secret != server.key.secret
    other.load_state_dict(state)
    assert other.key.secret == server.key.secret
    assert server.key.secret.hex() not in f"{server.key!r}{vars(server)!r}"
    file.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        key_named(file.stem)
    file.unlink()
    with pytest.raises(UserError, match="by the holder of its key alone"):
        Rounds("dp-fedavg").server.load_state_dict(state)


@pytest.mark.parametrize("content", ["", "{}", '{"key": "00"}', '{"key": "SECRET"}', "SECRET"])
def test_a_file_that_is_no_key_is_refused_without_its_content(content, tmp_path):
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(UserError, match="cannot be read as the key") as refused:
        read_key(file)
    assert "SECRET" not in str(refused.value) and refused.value.__cause__ is None


def test_a_run_that_may_release_nothing_or_cannot_count_is_refused(monkeypatch):
    def said(text: str) -> list[str]:
        return check({"strategy.name": "dp-fedavg", "strategy.options": text})

    assert said("epsilon=8, noise=2") == []
    (sentence,) = said("epsilon=0.1, noise=1")
    assert f"the first release has {privacy.epsilon([1.0], 1e-5):.3g} with noise=1" in sentence
    monkeypatch.setattr(privacy, "find_spec", lambda name: None)
    (sentence,) = said("epsilon=8, noise=2")
    assert "install the extra dp" in sentence


@pytest.fixture
def cfg(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    changes = {
        "strategy.fraction-train": 0.75,
        "strategy.name": "dp-fedavg",
        "num-server-rounds": ROUNDS,
        "train.keep-states": 0,
        "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 2,
        "prompt.template": "{question} ",
    }
    return tiny_settings(tmp_path, tiny_model, 42, changes)


def within(releases: int) -> str:
    """Options under which so many releases fit."""
    limit = privacy.epsilon([2.0] * releases, 1e-5) + 1e-6
    return f"clip=0.01, noise=2, delta=1e-5, epsilon={limit}"


def forms(secret: bytes) -> list[bytes]:
    """How a secret may be written: bytes, hex, base64 at any offset, base32, a list of numbers."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode(), secret[::-1]]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # The ends depend on what stands beside it.
        found += [encode(bytes(skip) + secret)[4:-4] for skip in range(3)]
    found += [base64.b32encode(secret).rstrip(b"=")]
    found += [joint.join(str(byte).encode() for byte in secret) for joint in (b", ", b",", b" ")]
    return found


def seeds(key: NoiseKey, names: list[str]) -> list[bytes]:
    """The keys of the streams of noise, written out from the text of noise_key.py."""

    def mac(*parts: bytes) -> bytes:
        framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(key.secret, framed, hashlib.sha256)

    return [
        mac(b"noise", bytes.fromhex(tag), name.encode()) for tag in key.releases for name in names
    ]


def holding(secrets: list[bytes], *folders: Path) -> list[Path]:
    """The files that hold one of them."""
    looked_for = [form for secret in secrets for form in forms(secret)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(form in path.read_bytes() for form in looked_for)]


def test_a_run_ends_before_it_passes_epsilon_and_its_key_is_nowhere(cfg, home, caplog):
    caplog.set_level("DEBUG")
    cfg["strategy.options"] = within(2)
    ended = run(rendered("finance"), cfg, 1, NODES)
    about = json.loads((ended.folder / "run.json").read_text())
    assert about["status"] == "finished"
    assert about["reason"].startswith("stopped after round 2: one more release would pass epsilon=")
    assert ended.checkpoints == ["peft_2"]
    manifest = json.loads((ended.folder / "peft_2" / "manifest.json").read_text())
    spent = privacy.epsilon([2.0, 2.0], 1e-5)
    wanted = {"epsilon": spent, "delta": 1e-5, "releases": 2, "noise": 2.0, "clip": 0.01}
    assert manifest["privacy"] == wanted == ended.rounds[-1]["privacy"]
    assert f"privacy: epsilon {spent:.3f} of" in caplog.text

    (file,) = home.rglob("noise-keys/*.jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = read_key(file)
    assert len(key.releases) == 2
    secrets = [key.secret, *seeds(key, list(ended.adapter(2)))]
    # The search finds it where it is, so it would elsewhere.
    assert holding(secrets, home) == [file]
    assert holding(secrets, ended.folder) == []
    noise = np.zeros(8)
    key.add_noise(noise, 1.0, next(iter(key.releases)), next(iter(ended.adapter(2))))
    np.testing.assert_allclose(noise, normal(secrets[1])[:8], rtol=1e-12)  # they are the seeds
    text = caplog.text.encode()
    assert not [form for secret in secrets for form in forms(secret) if form in text]

    # Resumed, it has nothing left to spend; all that was trained is there.
    before = ended.sha(2)
    run(rendered("finance"), {**cfg, "resume-from": str(ended.folder)}, 2, NODES)
    assert len(ended.rounds) == 2 and ended.sha(2) == before
    assert len(read_key(file).releases) == 2


def normal(seed: bytes) -> np.ndarray:
    """The first values of a stream of noise, by Box and Muller from ChaCha20's."""
    size = noise_key.BLOCK
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), None).encryptor()
    uniform = (np.frombuffer(stream.update(bytes(16 * size)), "<u8") >> 11) / 2**53
    return np.sqrt(-2 * np.log(1 - uniform[:size])) * np.cos(2 * np.pi * uniform[size:])


def test_a_round_that_comes_out_otherwise_is_released_only_if_it_may_be(cfg, home):
    cfg["strategy.options"] = within(3)
    app = rendered("finance")
    first = run(app, cfg, 1, NODES)
    was = [first.sha(n) for n in (3,)]
    back = {**cfg, "resume-from": str(first.folder / "state" / "round_2")}
    # Alike: the same release, to the bit, and nothing is spent.
    run(app, back, 2, NODES)
    assert [first.sha(3)] == was and first.rounds[-1]["privacy"]["releases"] == 3
    # Without one client: another release, which would pass epsilon. The run ends as it was.
    lost = first.rounds[-1]["partitions"][0]
    run(app, back, 3, NODES, lambda n, p, reply: None if p == lost else reply)
    about = json.loads((first.folder / "run.json").read_text())
    assert about["status"] == "finished" and "would pass epsilon" in about["reason"]
    assert [line["round"] for line in first.rounds] == [1, 2]
    assert (first.folder / "state" / "round_2").is_dir()
    assert not (first.folder / "state" / "round_3").exists()
    (file,) = home.rglob("noise-keys/*.jsonl")
    assert len(read_key(file).releases) == 3
