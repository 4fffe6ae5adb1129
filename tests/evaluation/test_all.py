"""`python -m evaluation.all`: the same scores as the commands of the challenges, fewer loads."""

import json
from pathlib import Path

import pytest

from evaluation import all as command
from evaluation import cli
from evaluation import model as loading
from tests.evaluation.checkpoints import save_checkpoint

OPTIONS = ("--sample", "--quantization", "0", "--limit", "2", "--answer-tokens", "4")
CHALLENGES = ("finance", "general-nlp", "medical")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    """A checkpoint of each challenge, all on the same base model."""
    folder = tmp_path_factory.mktemp("all")
    return {name: save_checkpoint(folder / name / "peft_2", tiny, name) for name in CHALLENGES}


@pytest.fixture
def loads(monkeypatch):
    """Count how often a base model is loaded."""
    seen, load = [], loading.load_base

    def counted(choice):
        seen.append(choice)
        return load(choice)

    monkeypatch.setattr(loading, "load_base", counted)
    return seen


def run(*words):
    command.main([str(word) for word in words])


def scores_under(folder: Path):
    """The part of every result below a folder that a score is, by challenge and adapter."""
    found = {}
    for file in folder.glob("scores/*/*/results.json"):
        results = json.loads(file.read_text())
        key = (results["challenge"], results["provenance"]["adapter"]["digest"])
        found[key] = {name: results[name] for name in ("models", "sets", "average", "unofficial")}
    return found


def test_each_score_is_that_of_its_own_command_with_one_load(
    saved, loads, tmp_path, monkeypatch, capsys
):
    (tmp_path / "all").mkdir()
    monkeypatch.chdir(tmp_path / "all")
    run(*saved.values(), *OPTIONS, "--compare", "base")
    assert len(loads) == 1
    assert "3 scores, 1 model load:" in capsys.readouterr().out
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    for name, folder in saved.items():
        cli.main(name, [str(folder), *OPTIONS, "--compare", "base"])
    together, alone = scores_under(tmp_path / "all"), scores_under(tmp_path / "one")
    assert len(together) == 3
    assert together == alone


def test_another_adapter_leaves_nothing_of_the_one_before(
    saved, tiny, loads, tmp_path, monkeypatch
):
    other = save_checkpoint(tmp_path / "other" / "peft_2", tiny, seed=2)
    found = []
    for order in ([saved["finance"], other], [other, saved["finance"]]):
        folder = tmp_path / f"first-{order[0].parent.name}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        run(*order, *OPTIONS)
        found.append(scores_under(folder))
    assert len(loads) == 2
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_merging_comes_last_and_is_not_shared(saved, tiny, loads, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evaluation.programs.check", lambda *_, **__: "no programs run")
    monkeypatch.setattr(
        "evaluation.programs.run_all",
        lambda programs, **_: [
            type("One", (), {"passed": False, "status": "failed", "detail": ""})() for _ in programs
        ],
    )
    words = ["--challenges", "code,finance", "--unofficial", *OPTIONS, "--limit", 1]
    run(saved["finance"], *words)
    printed = capsys.readouterr().out
    assert len(loads) == 1
    assert printed.index("on finance") < printed.index("on code")


def test_everything_wrong_is_said_at_once_before_a_model_is_loaded(
    saved, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_base", lambda choice: pytest.fail("model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        run(saved["finance"], "--challenges", "medical,general-nlp", *OPTIONS)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "it was trained for finance, not for medical" in line
    assert "it was trained for finance, not for general-nlp" in line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to score: give checkpoint folders, or a model with --model"),
        (["nowhere", "nowhere2"], "nowhere is no folder"),
        (["CKPT", "--challenges", "finance,sports"], "names no challenge that is scored: sports;"),
        (["CKPT", "--backend", "vllm"], "--backend vllm is for --suite standard"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, saved, capsys):
    with pytest.raises(SystemExit):
        run(*(word.replace("CKPT", str(saved["finance"])) for word in words))
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def test_a_score_that_fails_does_not_keep_the_others_from_being_made(
    saved, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    make = command.score

    def some_fail(job, session):
        if job.challenge == "finance":
            raise command.UserError("its weights are damaged")
        return make(job, session)

    monkeypatch.setattr(command, "score", some_fail)
    with pytest.raises(SystemExit) as stopped:
        run(saved["finance"], saved["medical"], *OPTIONS)
    printed = capsys.readouterr()
    assert stopped.value.code == 1
    assert "error: its weights are damaged" in printed.err
    assert "1 score, 1 model load:" in printed.out
    assert [key[0] for key in scores_under(tmp_path)] == ["medical"]


def test_a_base_model_is_answered_for_once(saved, tiny, tmp_path, monkeypatch, capsys):
    """Two checkpoints compared with the same base model: its answers are kept for the second."""
    monkeypatch.chdir(tmp_path)
    other = save_checkpoint(tmp_path / "again" / "peft_4", tiny, seed=2)
    run(saved["finance"], other, *OPTIONS, "--compare", "base")
    assert "base model: 6 answers are there already" in capsys.readouterr().err


def test_options_are_those_of_the_challenges_own_command(saved):
    words = [str(saved["finance"]), "--challenges", "finance", "--official-batching", "--sample"]
    arguments = command.parser().parse_args(words)
    ((challenge, made),) = command.requests(arguments)
    assert challenge == "finance"
    assert made.words == [str(saved["finance"]), "--sample", "--official-batching"]
    assert made.quantization == 4


def test_replayed_batches_are_the_same_after_another_adapter(saved, tiny, tmp_path, monkeypatch):
    """The random numbers that a replay begins with are those of a model just loaded."""
    other = save_checkpoint(tmp_path / "other" / "peft_2", tiny, seed=2)
    words = ["--sample", "--quantization", 0, "--limit", 2, "--sets", "fiqa"]
    monkeypatch.chdir(tmp_path)
    cli.main("finance", [str(word) for word in (other, *words, "--official-batching")])
    alone = scores_under(tmp_path)
    (tmp_path / "all").mkdir()
    monkeypatch.chdir(tmp_path / "all")
    run(saved["finance"], other, *words[:-2], "--official-batching")
    together = scores_under(tmp_path / "all")
    ((key, score),) = alone.items()
    assert together[key]["sets"]["fiqa"] == score["sets"]["fiqa"]
