"""Reference convergence: the band, how often it flags by chance, and the command."""

import json
import math
import random

import pytest

from challenges import record
from flowertune.base.errors import UserError
from flowertune.base.student import quantile
from submissions import convergence
from submissions.convergence import bands, cli
from submissions.convergence.reference import Reference, read_reference
from submissions.verify import cli as verify_cli
from tests.submissions.on_record import on_record
from tests.submissions.tampered import Edit
from tests.submissions.valid import valid_files

KEY = ("finance", "50-supernodes", "1.0.0", "m")


def curve(seed, rounds=40, speed=1.0, start=2.0, noise=0.05):
    """A loss that falls from `start` to about 0.5, with noise of a run and of each round."""
    draw = random.Random(seed)
    offset = draw.gauss(0, noise)
    return [
        0.5 + (start - 0.5) * math.exp(-speed * n / 15) + offset + draw.gauss(0, noise)
        for n in range(rounds)
    ]


def lines(losses):
    return [{"round": n, "train-loss": loss} for n, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("probability", "freedom", "known"),
    # Out of printed tables of the distribution.
    [
        (0.95, 1, 6.313752), (0.975, 2, 4.302653), (0.95, 9, 1.833113), (0.995, 9, 3.249836),
        (0.975, 30, 2.042272), (0.9995, 120, 3.373454), (0.995, 4, 4.604095),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(probability, freedom, known):
    assert quantile(probability, freedom) == pytest.approx(known, abs=2e-6)


def test_quantiles_agree_with_scipy_where_it_is_installed():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 9, 29, 499):
        for probability in (0.51, 0.9, 0.995, 0.99999):
            expected = stats.t.ppf(probability, freedom)
            assert quantile(probability, freedom) == pytest.approx(expected, rel=1e-9)


def test_rounds_are_cut_into_ten_stretches_or_fewer():
    assert bands.stretches(200)[0] == (1, 20) and bands.stretches(200)[-1] == (181, 200)
    assert bands.stretches(3) == [(1, 1), (2, 2), (3, 3)]
    for rounds in (1, 7, 10, 23, 101):
        cuts = bands.stretches(rounds)
        assert [n for a, b in cuts for n in range(a, b + 1)] == list(range(1, rounds + 1))


def test_a_band_is_the_prediction_interval_of_its_runs():
    band = bands.band_of([[1.0, 2.0], [2.0, 2.5], [3.0, 4.5]])
    assert (band[0].mean, band[0].deviation) == (2.0, 1.0)
    assert band[0].limit == pytest.approx(2 - quantile(0.975, 2) * math.sqrt(4 / 3))
    for wrong, said in (
        ([[1.0], [2.0]], "at least 3 runs"),
        ([[1.0], [2.0], [3.0, 4.0]], "different numbers of rounds"),
        ([[1.0], [2.0], [1.0]], "a seed of its own"),
        ([[1.0, None], [2.0, 1.0], [1.5, 2.0]], "no loss in rounds 2 to 2"),
    ):
        with pytest.raises(ValueError, match=said):
            bands.band_of(wrong)


def test_runs_like_the_reference_runs_are_seldom_flagged_and_faster_ones_always():
    flagged = honest = 0
    for trial in range(60):
        band = bands.band_of([curve(f"{trial}-{n}") for n in range(10)])
        for n in range(5):
            honest += 1
            status = bands.compare(curve(f"{trial} new {n}"), band, 10).status
            flagged += status == "faster"
        assert bands.compare(curve(trial, speed=2.0), band, 10).status == "faster"
        # A run that begins with another's adapter.
        assert bands.compare(curve(trial, start=1.0), band, 10).status == "faster"
        assert bands.compare(curve(trial, speed=0.5), band, 10).status == "within"
    assert flagged / honest <= bands.LEVEL + 0.02


def test_what_is_compared_is_what_both_have():
    band = bands.band_of([curve(n) for n in range(5)])
    short = bands.compare(curve(9)[:10], band, 5)
    assert short.status == "within" and "2 stretches" in short.sentence
    assert bands.compare([], band, 5).status == "none"
    long = bands.compare([*curve(9), *[0.0] * 40], band, 5)
    assert long.status == "within"
    strange = [None, float("nan"), "x", True, 10**400, float("inf")]
    assert bands.losses([{"train-loss": loss} for loss in strange[:4]] + [{}]) == [None] * 5
    fast = bands.compare([loss / 2 for loss in curve(9)], band, 5)
    assert fast.status == "faster" and "in rounds 1 to 4, where they have" in fast.sentence
    assert "and in 9 later stretches" in fast.sentence and "Look at its" in fast.sentence


def write_run(folder, seed, **changes):
    settings = {
        "static.challenge": "finance", "static.rules": "50-supernodes",
        "static.rules-version": "1.0.0", "num-server-rounds": 40, "seed": seed,
        **changes.pop("settings", {}),
    }  # fmt: skip
    losses = changes.pop("losses", curve(seed))
    info = {
        "status": "finished", "official": True, "rounds": 40, "model": "m", "settings": settings,
        **changes,
    }  # fmt: skip
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "rounds.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines(losses)))
    return str(folder)


def test_the_command_makes_a_band_that_verify_reads(tmp_path, capsys, monkeypatch):
    runs = [write_run(tmp_path / f"r{n}", n) for n in range(4)]
    file = tmp_path / "band.json"
    cli.main([*runs, "-o", str(file)])
    printed = capsys.readouterr().out
    assert "finance with m, rules 50-supernodes 1.0.0: 4 runs of 40 rounds (few: 10" in printed
    assert printed.count("\n") == 13 and "    1-4" in printed
    made = read_reference(file)
    assert made.check(*KEY, lines(curve(7))).status == "within"
    assert made.check(*KEY, lines(curve(7, start=0.9))).status == "faster"
    for key in (("code", *KEY[1:]), (KEY[0], "flower.ai", *KEY[2:]), (*KEY[:3], "other")):
        none = made.check(*key, lines(curve(7)))
        assert none.status == "none" and "No reference runs are known of" in none.sentence
    # Another model beside it; published with the rules.
    cli.main([*[write_run(tmp_path / f"o{n}", n, model="o") for n in range(3)], "-o", str(file)])
    assert set(read_reference(file).found["finance"]) == {"m", "o"}
    before = file.read_text()
    with pytest.raises(SystemExit) as ended:
        cli.main([*runs[:3], "-o", str(file)])
    assert ended.value.code == 2 and file.read_text() == before
    assert "has a band of finance with m already" in capsys.readouterr().err
    cli.main([*runs[:3], "-o", str(file), "--force"])
    assert read_reference(file).found["finance"]["m"]["runs"] == 3
    monkeypatch.setattr(record, "_read", lambda name: json.loads(file.read_text()))
    there = convergence.published("50-supernodes", "1.0.0")
    assert there is not None and there.check(*KEY, lines(curve(7))).status == "within"
    monkeypatch.setattr(record, "_read", lambda name: {})
    assert convergence.published("50-supernodes", "1.0.0") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "stopped"}, "is stopped, and a reference run has to be finished"),
        ({"losses": curve(1)[:30]}, "has a loss for 30 of its 40 rounds"),
        ({"losses": [None, *curve(1)[1:]]}, "has a loss for 39 of its 40 rounds"),
        ({"official": False}, "not official, and a band is of runs that keep the rules"),
        ({"settings": {"static.rules-version": "2.0.0"}}, "are of several rules"),
        ({"settings": {"train.seq-length": 7}}, "finance with m differ in train.seq-length"),
        ({"losses": curve(0)}, "each needs a seed of its own"),
        ({"model": "other"}, "finance with other: a band needs at least 3 runs"),
    ],
)
def test_runs_that_make_no_band_are_one_sentence(tmp_path, capsys, changes, said):
    runs = [write_run(tmp_path / f"r{n}", n) for n in range(3)]
    runs.append(write_run(tmp_path / "wrong", 9, **changes))
    with pytest.raises(SystemExit) as ended:
        cli.main([*runs, "-o", str(tmp_path / "band.json")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "band.json").exists()


def test_a_file_of_another_form_is_one_sentence(tmp_path):
    made = Reference("a", "1.0.0")
    made.add("finance", "m", [curve(n) for n in range(3)], {})
    good = made.record()
    for key, value in (
        ("format", 2), ("rules", None), ("challenges", []), ("challenges", {"f": {"m": {}}}),
        ("challenges", {"f": {"m": {"runs": 3, "rounds": 1, "stretches": [{"first": "1"}]}}}),
    ):  # fmt: skip
        (tmp_path / "f.json").write_text(json.dumps({**good, key: value}))
        with pytest.raises(UserError, match=f"has {key} .*which has to be"):
            read_reference(tmp_path / "f.json")
    (tmp_path / "f.json").write_text("{" * 10)
    with pytest.raises(UserError, match="cannot be used"):
        read_reference(tmp_path / "f.json")
    with pytest.raises(UserError, match="there is no file"):
        read_reference(tmp_path / "none.json")


def test_the_verifier_warns_of_a_bundle_below_the_band_and_calls_it_valid(tmp_path, capsys):
    bundle = tmp_path / "bundle.zip"
    files = valid_files()
    with on_record():
        bundle.write_bytes(Edit(files, tmp_path).zip())
        manifest = json.loads(files["adapter/manifest.json"])
        own = bands.losses([json.loads(line) for line in files["run/rounds.jsonl"].splitlines()])

        def checked(height, model=manifest["base-model"]["name"]):
            made = Reference(manifest["rules"], manifest["rules-version"])
            curves = [[loss * height + n / 1000 for loss in own] for n in range(3)]  # type: ignore
            made.add(manifest["challenge"], model, curves, {})
            (tmp_path / "band.json").write_text(json.dumps(made.record()))
            status = verify_cli.main([str(bundle), "--reference", str(tmp_path / "band.json")])
            return status, capsys.readouterr().out

        status, printed = checked(1.0)
        assert status == 0 and "convergence" not in printed
        status, printed = checked(1.5)
        assert status == 0 and "Its loss falls faster than that of 3 reference runs" in printed
        assert "warning" in printed and "VALID" in printed
        status, printed = checked(1.5, "another")
        assert status == 0 and "No reference runs are known of" in printed
        assert verify_cli.main([str(bundle), "--reference", str(tmp_path / "none.json")]) == 2
        assert "there is no file" in capsys.readouterr().err
