"""Bundles: what is in one, what keeps one from being made, and what is said then."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

import challenges
from flowertune.base.errors import UserError
from flowertune.base.hashing import file_sha256
from flowertune.methods.noise_key import read_key
from flowertune.run.training import TrainingRun
from submissions import layout
from submissions.archive import opened
from submissions.bundle import cli, difference, make, packing, refusal, sources, statement, states
from submissions.bundle.statement import Said
from submissions.findings import Finding
from submissions.signing import keys
from submissions.verify.check import verify
from tests.apps import ROOT, rendered
from tests.flowertune.methods.test_dp_fedavg import forms, holding, seeds
from tests.submissions.bundles import (
    CONTACT,
    ROUNDS,
    RUN_ID,
    TEAM,
    Scored,
    bundle,
    run_and_score,
    scored,
    submitted,
    unpacked,
)
from tests.submissions.on_record import RULES, on_record

WHO = ("--team", TEAM, "--contact", CONTACT)


@pytest.fixture
def copy(tmp_path):
    """A copy of the run, its app and its score, to be changed."""
    made = scored()
    app, scores = tmp_path / "app", tmp_path / "scores"
    shutil.copytree(made.app, app)
    shutil.copytree(made.scores, scores)
    return Scored(made.rules, app, app / "results" / str(RUN_ID), scores, "")


def submit(*words, scores=None):
    """Type the command where the small rules are on record; returns its exit status."""
    with on_record():
        places = [] if scores is None else ["--scores", str(scores)]
        return cli.main([str(word) for word in (*words, *places)])


def files(path):
    """The files of a zip, by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_is_valid_and_holds_everything(tmp_path):
    with on_record():
        report = verify(bundle())
    assert [f for f in report.findings if f.level != "note"] == []
    there = files(bundle())
    constants = {
        value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)
    }
    folders = {name for name in constants if any(n.startswith(f"{name}/") for n in there)}
    signatures = {layout.SIGNATURE, layout.MODEL_SIGNATURE}
    assert constants - folders - signatures <= there.keys()
    assert f"{layout.HUB_RESULTS}/flowertune-finance.yaml" in there
    assert {f"{layout.ROWS}/{name}.jsonl" for name in ("fpb", "fiqa", "tfns")} <= there.keys()
    run = scored().run
    for name in ("run.json", "rounds.jsonl", "ledger.jsonl", "chain.jsonl"):
        assert there[f"run/{name}"] == (run / name).read_bytes()
    for file in (run / f"peft_{ROUNDS}").iterdir():
        assert there[f"adapter/{file.name}"] == file.read_bytes()


def test_sha256sum_checks_an_unpacked_bundle(tmp_path):
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum")
    folder = unpacked(tmp_path / "bundle")
    command = ["sha256sum", "--check", "--quiet", "--strict", layout.SUMS]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0
    listed = {line[66:] for line in (folder / layout.SUMS).read_text().splitlines()}
    assert listed == files(bundle()).keys() - {layout.SUMS}


def test_the_same_run_makes_the_same_bytes_whenever_and_from_wherever(copy, tmp_path):
    again = submitted(copy, tmp_path / "again.zip")
    assert again.read_bytes() == bundle().read_bytes()


def test_the_statement_says_what_the_run_knows(tmp_path):
    body = json.loads(files(bundle())[layout.SUBMISSION])
    assert body.keys() == statement.FIELDS.keys()
    assert all(value.fits(body[key]) for key, value in statement.FIELDS.items())
    assert (body["team"], body["contact"], body["division"]) == (TEAM, CONTACT, "closed")
    assert body["checkpoint"]["round"] == ROUNDS
    assert body["checkpoint"]["chosen"] == "last"
    results = json.loads((scored().scores / "results.json").read_text())
    assert body["scores"] == {
        name: entry["scores"]["checkpoint"]["score"] for name, entry in results["sets"].items()
    }
    assert body["average"] == results["average"]["scores"]["checkpoint"]["score"]
    assert "core" in body["hardware"]
    seconds = [json.loads(x)["seconds"] for x in (scored().run / "rounds.jsonl").open()]
    assert body["hours"] == round(sum(seconds) / 3600, 4)
    given = submitted(scored(), tmp_path / "g.zip", hardware="8 × H100", hours=12.5, note="first")
    said = json.loads(files(given)[layout.SUBMISSION])
    assert (said["hardware"], said["hours"], said["note"]) == ("8 × H100", 12.5, "first")


def test_gpus_are_counted_in_words():
    facts = {"gpus": ["NVIDIA A100", "NVIDIA A100", "NVIDIA H100"], "cores": 1, "machine": "x86_64"}
    assert statement.hardware_of(facts) == "2 × NVIDIA A100, 1 × NVIDIA H100, 1 core (x86_64)"


@pytest.mark.parametrize(
    ("team", "name"),
    [("Team Östlund", "team-ostlund"), ("../../x", "x"), ("東京", "team"), ("a" * 99, "a" * 40)],
)
def test_a_team_is_part_of_the_files_name(team, name):
    assert statement.slug(team) == name


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"team": "two\nlines"}, "--team is"),
        ({"team": "x" * 101}, "--team is"),
        ({"note": "\x1b[31m"}, "--note is"),
        ({"hours": -1.0}, "--hours is -1.0"),
        ({"hours": float("nan")}, "--hours is nan"),
        ({"link": "http://example.org/w"}, "--link is"),
        ({"link": "javascript:alert(1)"}, "--link is"),
        ({"states_link": "ftp://x"}, "--states-link is"),
        ({"hardware": ""}, "--hardware is"),
    ],
)
def test_what_is_said_is_typed(said, words):
    with on_record():
        found = sources.read(scored().run, scored().scores)
        with pytest.raises(sources.Unfit) as raised:
            make.assemble(found, Said(**{"team": TEAM, "contact": CONTACT, **said}))
    assert len(raised.value.problems) == 1
    assert words in raised.value.problems[0].sentence
    assert raised.value.problems[0].about == sources.COMMAND


def test_everything_missing_or_wrong_is_listed_at_once(copy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (copy.run / "chain.jsonl").unlink()
    (copy.run / "ledger.jsonl").unlink()
    with (copy.app / "flowertune_finance" / "strategy.py").open("a") as file:
        file.write("# other\n")
    about = json.loads((copy.run / "run.json").read_text())
    (copy.run / "run.json").write_text(json.dumps({**about, "status": "failed", "reason": "x"}))
    words = ("--link", "ftp://x", "--hours", "-1", "--sign", "nokey", "--method", "none.md")
    more = ("--push", "x", "--private", "--benchmarks", "a b")
    assert submit(copy.run, "-o", "out.zip", *words, *more) == 2
    said = capsys.readouterr().err
    for words in (
        "13 things to mend",
        "There is no key nokey",
        "--method none.md cannot be read",
        "--push is 'x'",
        "--benchmarks is 'a b'",
        "--link is 'ftp://x', which has to be an https address",
        "--hours is -1.0",
        "chain.jsonl is missing",
        "ledger.jsonl is missing",
        f"The run is failed (x) after round {ROUNDS}",
        "not as it was for the run, in flowertune_finance/strategy.py",
        "There is no official score",
        "python -m evaluation.finance",
        "--official-batching",
        "The team is missing",
        "The contact is missing",
    ):
        assert words in said
    order = [said.index(f"\n\n{heading}\n") for heading in
             ("The command line", "The run", "The app", "The score")]  # fmt: skip
    assert order == sorted(order)
    assert not Path("out.zip").exists()


def test_what_the_organizer_would_find_is_listed_with_what_is_missing(copy, tmp_path, capsys):
    """A set was changed by hand after scoring, and nobody has said who submits."""
    rows = copy.scores / "rows" / "fpb.jsonl"
    rows.write_text(rows.read_text().replace('"points": 0.0', '"points": 1.0'))
    out = tmp_path / "out.zip"
    assert submit(copy.run, "-o", out, "--hours", "nan", scores=copy.scores) == 2
    said = capsys.readouterr().err
    assert "The team is missing" in said
    assert "--hours is nan" in said
    assert "\n- score/" in said
    assert submit(copy.run, *WHO, "-o", out, scores=copy.scores) == 1
    assert "The team is missing" not in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_not_the_scorers_ends_in_a_sentence(copy, tmp_path, capsys):
    file = copy.scores / "results.json"
    body = json.loads(file.read_text())
    del body["sets"]["fpb"]["scores"]["checkpoint"]["score"]
    file.write_text(json.dumps(body))
    assert submit(copy.run, *WHO, "-o", tmp_path / "out.zip", scores=copy.scores) == 1
    said = capsys.readouterr().err
    assert said.startswith("Not submitted: scores is ") and said.count("\n") == 1
    file.write_text("{")
    assert submit(copy.run, *WHO, scores=copy.scores) == 1
    assert "results.json is no JSON" in capsys.readouterr().err


def test_an_unofficial_checkpoint_is_refused(tmp_path, capsys):
    """The same run and score, where the small rules are not on record."""
    made = scored()
    words = [str(made.run), *WHO, "--scores", str(made.scores), "-o", str(tmp_path / "out.zip")]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert f"It trained on {made.rules.rows}, and the rules lock flwrlabs/" in said
    assert "static.num-supernodes is 4 (locked: 50)" in said
    # Each cause once: what the organizer's check says of it again is left out.
    assert "rules/locked-value" not in said and "rules/official" not in said
    assert not (tmp_path / "out.zip").exists()


def test_only_the_last_checkpoint_or_the_one_that_the_run_chose(copy, tmp_path, capsys):
    early = copy.run / "peft_1"
    shutil.copytree(copy.run / f"peft_{ROUNDS}", early)
    assert submit(early, *WHO, scores=copy.scores) == 1
    assert f"not the last checkpoint of its run, peft_{ROUNDS}" in capsys.readouterr().err
    shutil.rmtree(copy.run / f"peft_{ROUNDS}")
    assert submit(copy.run, *WHO, scores=copy.scores) == 1
    assert "is missing, the run's last checkpoint (there: peft_1)" in capsys.readouterr().err


def test_a_checkpoint_that_the_run_chose_says_so(copy):
    about = json.loads((copy.run / "run.json").read_text())
    about[sources.CHOSEN] = {"round": ROUNDS, "rows": 10, "loss": 1.0}
    (copy.run / "run.json").write_text(json.dumps(about))
    rounds = copy.run / "rounds.jsonl"
    later = json.loads(rounds.read_text().splitlines()[-1]) | {"round": ROUNDS + 1}
    rounds.write_text(rounds.read_text() + json.dumps(later) + "\n")
    with on_record():
        found = sources.look(copy.run / f"peft_{ROUNDS}", copy.scores)
        assert found.sources is not None
        body = statement.statement(found.sources, Said(team=TEAM, contact=CONTACT))
    assert body["checkpoint"]["chosen"] == "best"
    assert body["states"]["rounds"] == ROUNDS + 1


def test_a_run_chooses_a_checkpoint_and_a_bundle_of_it_is_valid(tmp_path, capsys):
    """The app holds rows out in its own way, and says after round 1 that this is the best."""

    def choosing(app):
        file = app / "flowertune_finance" / "server_app.py"
        line = "            run.end_round(result, adapter, metrics)\n"
        text = file.read_text()
        assert text.count(line) == 1
        more = (
            "            if server_round == 1:\n                run.choose(1, rows=4, loss=1.5)\n"
            "        run.choose(1, rows=5, loss=1.4)\n"
        )
        file.write_text(text.replace(line, line + more))

    folder = tmp_path / "own"
    folder.mkdir()
    one = run_and_score(folder.resolve(), choosing, "peft_1", **{"train.save-every-round": 1})
    about = json.loads((one.run / "run.json").read_text())
    assert about["chosen"] == {"round": 1, "rows": 5, "loss": 1.4}
    state = json.loads((one.run / "state" / f"round_{ROUNDS}" / "state.json").read_text())
    assert state["chosen"] == {"round": 1, "rows": 4, "loss": 1.5}
    records = [json.loads(line) for line in (one.run / "chain.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [0, 1, 2, ROUNDS, ROUNDS]
    assert [record["chosen"] for record in records[-2:]] == [state["chosen"], about["chosen"]]
    capsys.readouterr()
    out = tmp_path / "out.zip"
    assert submit(one.run / "peft_1", *WHO, "-o", out, scores=one.scores) == 0, capsys.readouterr()
    body = json.loads(files(out)[layout.SUBMISSION])
    assert (body["checkpoint"]["round"], body["checkpoint"]["chosen"]) == (1, "best")
    assert submit(one.run / "peft_2", *WHO, scores=one.scores) == 1
    assert "nor one that the run itself chose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((3, 5, 1.0), "round 3, which has no checkpoint"),
        ((2, 0, 1.0), "0 rows"),
        ((2, True, 1.0), "True rows"),
        ((2, 5, float("nan")), "the loss nan"),
    ],
)
def test_a_choice_is_of_a_checkpoint_that_is_there(words, said, tmp_path):
    run = object.__new__(TrainingRun)
    run.folder, run.chosen = tmp_path, None
    (tmp_path / "peft_2").mkdir()
    with pytest.raises(UserError, match=said):
        run.choose(*words)
    assert run.chosen is None
    run.choose(2, 5, 1)
    assert run.chosen == {"round": 2, "rows": 5, "loss": 1.0}


def test_a_run_that_the_budget_ended_is_finished(copy):
    about = json.loads((copy.run / "run.json").read_text())
    about |= {
        "rounds": 9,
        "reason": f"stopped after round {ROUNDS}: the next would pass the budget",
    }
    (copy.run / "run.json").write_text(json.dumps(about))
    with on_record():
        found = sources.look(copy.run, copy.scores)
    assert found.sources is not None
    assert (found.sources.chosen, found.wrong) == ("last", [])


def test_a_score_of_another_checkpoint_is_not_taken(copy, capsys):
    file = copy.run / f"peft_{ROUNDS}" / "adapter_config.json"
    file.write_text(file.read_text() + " ")
    assert submit(copy.run, *WHO, scores=copy.scores) == 1
    assert "is the score of another checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["run.json", "app", "folder"])
def test_what_is_no_run_is_named(copy, missing, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if missing == "run.json":
        (copy.run / "run.json").unlink()
    elif missing == "app":
        shutil.move(copy.run, tmp_path / "alone")
    place = {"run.json": copy.run, "app": tmp_path / "alone", "folder": tmp_path / "none"}[missing]
    code = submit(place, *WHO, scores=copy.scores)
    assert code == (1 if missing == "app" else 2)
    said = capsys.readouterr().err
    assert ("name its folder with --app" if missing == "app" else "holds no run.json") in said


def test_an_app_is_named_where_the_results_are_elsewhere(copy, tmp_path):
    shutil.move(copy.run, tmp_path / "alone")
    out = tmp_path / "out.zip"
    words = (tmp_path / "alone", *WHO, "--app", copy.app, "-o", out)
    assert submit(*words, scores=copy.scores) == 0
    assert out.read_bytes() == bundle().read_bytes()


def test_a_file_that_came_after_the_run_is_no_part_of_the_app(copy, tmp_path):
    (copy.app / "method.md").write_text("We average in another way.")
    (copy.app / "flowertune_finance" / "later.py").write_text("x = 1\n")
    again = submitted(copy, tmp_path / "again.zip")
    assert again.read_bytes() == bundle().read_bytes()
    (copy.app / "test.py").unlink()
    with pytest.raises(sources.Unfit, match=r"not as it was for the run, in test\.py"):
        submitted(copy, tmp_path / "again.zip")


def test_weights_elsewhere_leave_their_hash(tmp_path):
    link = "https://example.org/weights/adapter_model.safetensors"
    linked = submitted(scored(), tmp_path / "linked.zip", link=link)
    there = files(linked)
    assert layout.WEIGHTS not in there
    body = json.loads(there[layout.SUBMISSION])["weights"]
    weights = scored().run / f"peft_{ROUNDS}" / "adapter_model.safetensors"
    assert body == {
        "link": link, "sha256": file_sha256(weights), "bytes": weights.stat().st_size,
    }  # fmt: skip
    with on_record():
        assert verify(linked).valid


def test_divisions_are_told_by_the_base_model(copy, monkeypatch, capsys):
    with on_record() as rules, pytest.MonkeyPatch.context() as patch:
        facts = yaml.safe_dump({**rules.facts, "model": "acme/other"})
        text = challenges._text
        patch.setattr(challenges, "_text", lambda n: facts if n == "finance.yml" else text(n))
        found = sources.read(copy.run, copy.scores)
        said = Said(team=TEAM, contact=CONTACT)
        assert make.assemble(found, said).statement["division"] == "open"
        with pytest.raises(sources.Unfit, match="default base model, acme/other"):
            make.assemble(found, Said(team=TEAM, contact=CONTACT, division="closed"))
    with on_record():
        closed = make.assemble(sources.read(copy.run, copy.scores), said)
        assert closed.statement["division"] == "closed"
        opened_up = Said(team=TEAM, contact=CONTACT, division="open")
        assert make.assemble(found, opened_up).statement["division"] == "open"


def test_a_dry_run_shows_the_tree_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert submit(scored().run, *WHO, "--dry-run", scores=scored().scores) == 0
    shown = capsys.readouterr().out
    names = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert re.search(r"submission\.json  [\d,]+ B\n", shown)
    for part in {p for name in files(bundle()) for p in name.split("/")}:
        assert part in names or f"{part}/" in names
    assert "VALID" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_bundle_and_says_what_is_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert submit(scored().run, *WHO, scores=scored().scores) == 0
    said = capsys.readouterr().out
    (made,) = tmp_path.iterdir()
    assert re.fullmatch(r"finance-team-ostlund-[0-9a-f]{12}\.zip", made.name)
    assert made.read_bytes() == bundle().read_bytes()
    assert f"VALID. {made.name}" in said
    assert f"--states 1,{ROUNDS} -o states.zip" in said
    assert "signed by" not in said
    # A second time the same name is taken, which is found before anything is done.
    assert submit(scored().run, *WHO, scores=scored().scores) == 2
    assert f"{made.name} is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind", ["folder", "below a file", "new folder", "there already", "replaced"]
)
def test_where_a_bundle_is_written(kind, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("x")
    out = {
        "folder": tmp_path, "below a file": file / "b.zip",
        "new folder": tmp_path / "new" / "b.zip", "there already": file, "replaced": file,
    }[kind]  # fmt: skip
    force = ["--force"] if kind == "replaced" else []
    code = submit(scored().run, *WHO, "-o", out, *force, scores=scored().scores)
    said = capsys.readouterr().err
    wrong = {
        "folder": (2, "is a folder"), "there already": (2, "is there already"),
        "below a file": (1, "cannot be written"),
    }.get(kind)  # fmt: skip
    if wrong is not None:
        assert code == wrong[0]
        assert wrong[1] in said
        assert len(said.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert file.read_text() == "x"
    else:
        assert code == 0
        assert out.read_bytes() == bundle().read_bytes()


def test_a_practice_run_is_told_so_in_one_sentence_and_each_cause_once(tmp_path):
    """What the quickstart's run and score say, and what the organizer's check makes of them."""
    made = scored()
    results = json.loads((made.scores / "results.json").read_text())
    reasons = [
        "static.dataset.name is './samples/finance.jsonl' (locked: 'flwrlabs/x')",
        "the library is 'an editable install' (locked: 'a released version')",
    ]
    library = {"version": "1.0.0", "sha256": "0" * 64, "editable": True, "edited": []}
    results |= {"unofficial": reasons, "deviations": ["answers cut after 16 tokens (official: no)"]}
    results["provenance"] |= {"official-batching": False, "library": library}
    for one in results["sets"].values():
        one["full"] = False
    with on_record():
        found = sources.look(made.run, made.scores)
    found = replace(found, unofficial=reasons, results=results)
    repeated = [
        Finding("rules", "error", "m", "x", "official"),
        Finding("system", "error", "results/results.json: provenance", "x", "library-of-score"),
        Finding("score", "error", "results/results.json: deviations", "x", "official"),
        Finding("score", "error", "s: sets.fpb", "… of the full official rows.", "rows"),
    ]
    other = Finding("score", "error", "results/results.json: provenance.seed", "y", "official")
    with on_record():
        text = refusal.text(refusal.causes(found, [*repeated, other]), found)
    first, *rest = text.splitlines()
    assert first.startswith("Not submitted: this is a practice run, on the quickstart's sample")
    assert "with an editable install" in first
    assert [line for line in rest if line and not line.startswith("- ")] == [
        "The run", "The score", "The bundle, as the organizer's check sees it",
    ]  # fmt: skip
    lines = [line for line in rest if line.startswith("- ")]
    assert len(lines) == 7
    assert "without quickstart.toml" in lines[0]
    assert "FPB 6 of 6" in lines[2]
    assert "--official-batching" in lines[5]
    assert lines[6].startswith("- score/official") and lines[6].endswith("provenance.seed: y")


def test_an_encrypted_key_is_made_where_there_is_a_passphrase(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(keys.PASSPHRASE, "open sesame")
    assert submit("--new-key", tmp_path / "key") == 0
    assert "encrypted" in capsys.readouterr().out
    assert b"ENCRYPTED" in (tmp_path / "key").read_bytes()
    keys.private_key(tmp_path / "key")
    monkeypatch.delenv(keys.PASSPHRASE)
    with pytest.raises(UserError, match=f"put its passphrase into {keys.PASSPHRASE}"):
        keys.private_key(tmp_path / "key")


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_a_new_key_leaves_what_is_there(name, tmp_path, capsys):
    (tmp_path / name).write_text("x")
    assert submit("--new-key", tmp_path / "key") == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_states_do_not_replace_a_file(tmp_path, capsys):
    (tmp_path / "s.zip").write_text("x")
    assert submit(scored().run, "--states", "1", "-o", tmp_path / "s.zip") == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "s.zip").read_text() == "x"


def test_states_of_drawn_rounds_are_packed_with_their_hashes(tmp_path, capsys):
    out = tmp_path / "states.zip"
    assert submit(scored().run, "--states", "1,last", "-o", out) == 0
    assert "4 states for 2 rounds (1, 3)" in capsys.readouterr().out
    there = files(out)
    assert {name.split("/")[1] for name in there if "/" in name} == {
        "round_0", "round_1", "round_2", "round_3",
    }  # fmt: skip
    for name, content in there.items():
        if name != layout.SUMS:
            assert content == (scored().run / name).read_bytes()
    sums = dict(line.split("  ")[::-1] for line in there[layout.SUMS].decode().splitlines())
    chain = [json.loads(line) for line in (scored().run / "chain.jsonl").open()]
    for record in chain:
        name = f"state/round_{record['round']}/adapter.safetensors"
        assert sums[name] == record["adapter-sha256"]
    again = tmp_path / "again.zip"
    states.write_states(scored().run, "3, 1", again)
    assert again.read_bytes() == out.read_bytes()
    with opened(out):
        pass  # every name, size and kind is one that the organizer takes


@pytest.mark.parametrize("given", ["0", "4", "1,x", "", "-1", "1,,2", "²"])
def test_rounds_that_are_none_are_named(given, tmp_path, capsys):
    assert submit(scored().run, "--states", given, "-o", tmp_path / "s.zip") == 2
    assert "give rounds from 1 to 3, or last" in capsys.readouterr().err
    assert not (tmp_path / "s.zip").exists()


def test_states_that_are_gone_are_named(copy, tmp_path, capsys):
    for n in (0, 2):
        shutil.rmtree(copy.run / "state" / f"round_{n}")
    assert submit(copy.run, "--states", "1,3", "-o", tmp_path / "s.zip") == 1
    said = capsys.readouterr().err
    assert "no state of round 0, 2" in said
    assert "train.keep-states=0" in said
    assert submit(copy.run, *WHO, "-o", tmp_path / "b.zip", scores=copy.scores) == 0
    assert "has 2 states of 4" in capsys.readouterr().out


def test_the_template_that_a_difference_is_from_is_this_one():
    for name, text in difference.template_files().items():
        assert (ROOT / "template" / name).read_text("utf-8") == text
    assert len(difference.template_files()) == len(list((ROOT / "template/app").glob("*.py"))) + 1


def test_a_fresh_app_does_not_differ_from_its_template():
    from flowertune.rules.app_files import app_files

    app = app_files(rendered("finance", RULES))
    assert difference.changed_files(app) == {}
    assert difference.difference(app) == ""


def test_a_difference_is_a_patch_of_the_template(tmp_path):
    from flowertune.rules.app_files import app_files

    app = app_files(scored().app)
    package = "flowertune_finance"
    app[f"{package}/strategy.py"] += b"\n# mine\n"
    app[f"{package}/models.py"] = app[f"{package}/models.py"].rstrip(b"\n")
    app[f"{package}/ties.py"] = "ö = 1\n".encode()
    app["notes.txt"] = b"\xff\xfe"
    del app["test.py"]
    assert difference.changed_files(app) == {
        f"{package}/models.py": "changed",
        f"{package}/strategy.py": "changed",
        f"{package}/ties.py": "added",
        "notes.txt": "added",
        "test.py": "removed",
    }
    patch = difference.difference(app)
    assert "Binary file notes.txt was added" in patch
    for name in ("app", "template"):
        (tmp_path / name).mkdir()
    shutil.copytree(ROOT / "template/app", tmp_path / "app" / package)
    shutil.copy(ROOT / "template/test.py", tmp_path / "app")
    text = patch.replace("Binary file notes.txt was added\n", "").replace(
        "template/app/", f"app/{package}/"
    ).replace("template/test.py", "app/test.py")  # fmt: skip
    done = subprocess.run(
        ["git", "apply", "-p1", "-"], cwd=tmp_path / "app", input=text.encode(), check=False
    )
    assert done.returncode == 0
    for name, content in app.items():
        if name.startswith(f"{package}/"):
            assert (tmp_path / "app" / name).read_bytes() == content
    assert not (tmp_path / "app" / "test.py").exists()


def test_a_bundle_is_signed_by_a_key_of_ones_own(tmp_path, capsys):
    from submissions.signing import signature

    assert submit("--new-key", tmp_path / "key") == 0
    told = capsys.readouterr().out
    fingerprint = keys.signer_of(keys.public_key(tmp_path / "key.pub")).fingerprint
    assert f"fingerprint {fingerprint}" in told and "keep it private" in told
    out = tmp_path / "signed.zip"
    words = (scored().run, *WHO, "--sign", tmp_path / "key", "-o", out)
    assert submit(*words, scores=scored().scores) == 0
    assert f"signed by the key {fingerprint}" in capsys.readouterr().out
    there = files(out)
    body = json.loads(there.pop(layout.SIGNATURE))
    assert signature.check(there[layout.SUMS], body).fingerprint == fingerprint
    assert there == files(bundle())
    with on_record():
        report = verify(out)
    assert report.valid and f"\nsigned by the key {fingerprint}\n" in report.text()


def test_model_signing_is_an_extra(tmp_path, capsys):
    try:
        import model_signing  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        words = (scored().run, *WHO, "--model-sign", tmp_path / "key", "-o", tmp_path / "b.zip")
        assert submit(*words, scores=scored().scores) == 2
        assert "flowertune[sign]" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    else:
        pytest.skip("it is installed: see test_signing.py")


def test_a_zip_is_whole_or_not_there(tmp_path):
    target = tmp_path / "b.zip"
    target.write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        packing.write_zip(target, {"a": b"1", "b": tmp_path / "none"})
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
    assert target.read_bytes() == b"before"


def test_the_command_needs_a_run():
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.submit"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "RUN is missing" in done.stderr


def test_a_method_that_cannot_be_read_is_named(tmp_path):
    from submissions.push import read_method

    (tmp_path / "m.md").write_bytes(b"\xff")
    (tmp_path / "empty.md").write_text(" \n")
    for name, words in (("m.md", "no text"), ("empty.md", "is empty"), ("none.md", "No such")):
        with pytest.raises(UserError, match=words):
            read_method(tmp_path / name)


@pytest.mark.full
def test_the_key_of_secret_noise_is_in_no_file_that_is_handed_over(tmp_path):
    private: dict[str, Any] = {
        "strategy.name": "dp-fedavg",
        "strategy.options": "noise=1, epsilon=1000",
    }
    made = run_and_score(tmp_path / "made", **private)
    (file,) = (tmp_path / "made" / "flwr-home").rglob("noise-keys/*.jsonl")
    key = read_key(file)
    assert len(key.releases) == ROUNDS
    adapter = load_file(made.run / f"peft_{ROUNDS}" / "adapter_model.safetensors")
    secrets = [key.secret, *seeds(key, list(adapter))]
    given = unpacked(tmp_path / "given", submitted(made, tmp_path / "bundle.zip"))
    states.write_states(made.run, f"1,{ROUNDS}", tmp_path / "states.zip")
    unpacked(tmp_path / "states", tmp_path / "states.zip")
    assert holding(secrets, file.parent) == [file]  # where it is, it is found
    assert holding(secrets, given, tmp_path / "states", made.app, made.run, made.scores) == []
    assert not [f for secret in secrets for f in forms(secret) if f in made.printed.encode()]
    with on_record(), opened(tmp_path / "bundle.zip") as one:
        assert one.json(layout.MANIFEST)["privacy"]["releases"] == ROUNDS
