"""The task files: lm-eval's own models score our sets as our own command does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

import challenges
from evaluation import data, lm, lm_eval_tasks, run, sets, tasks
from evaluation.lm_eval_tasks import files
from flowertune.base.errors import UserError

FOLDER = Path(lm_eval_tasks.__file__).parent
SCORED = [name for name in challenges.names() if challenges.load(name)["evaluation"]["sets"]]
ROWS = 2


def test_the_files_are_as_the_sets_are():
    found = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.yaml")}
    assert found == files.texts(), "run ./scripts/generate"


@pytest.fixture(scope="module")
def manager():
    metadata: Any = {"sample": True}
    return TaskManager(include_path=str(FOLDER), include_defaults=False, metadata=metadata)


def ours(challenge, item, suite, model, tokenizer):
    """Points of the first rows of a sample, from our own scorer."""
    known = sets.of_challenge(challenge)
    source = data.Source("sample", data.SAMPLES / challenge)
    documents = {item.name: data.load(item, source, 1, suite)}
    plan = run.Plan(challenge, suite, [item], documents, known.seed, limit=ROWS)
    with run.suppress_logs():
        scorer = lm.RowwiseLM(model, tokenizer, 2)
    answers = run.score(scorer, plan).answers[item.name]
    return [float(answer.outcome.points) for answer in answers]


SETS = [
    (challenge, item.name, suite)
    for challenge in SCORED
    for item in sets.of_challenge(challenge).sets
    for suite in sets.SUITES
    # Programs in other languages take a compiler; answers that are drawn, another draw.
    if challenge != "code" or (item.name in ("mbpp", "humaneval") and suite == "standard")
]


def test_stock_models_decide_as_our_own_command_does(tiny, manager):
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    model.generation_config.max_new_tokens = 6  # wins over the tasks' own length, for both
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    names = {}
    for challenge, name, suite in SETS:
        item = sets.of_challenge(challenge).named()[name]
        names[tasks.name(challenge, item, suite)] = challenge, item, suite
    with run.suppress_logs():
        stock: Any = HFLM
        found: Any = simple_evaluate(
            model=stock(pretrained=model, tokenizer=tokenizer, batch_size=1),
            tasks=list(names),
            task_manager=manager,
            limit=ROWS,
            bootstrap_iters=0,
        )
    assert len(found["samples"]) == len(SETS)
    right = 0
    for name, (challenge, item, suite) in names.items():
        rows = sorted(found["samples"][name], key=lambda row: row["doc_id"])
        points = [row["acc"] for row in rows]
        assert points == ours(challenge, item, suite, model, tokenizer), name
        right += sum(points)
    assert right > 3


def test_every_other_file_makes_a_task(manager):
    others = {path.stem for path in FOLDER.glob("*.yaml")}
    loaded = manager.load(sorted(name for name in others if "code" in name))["tasks"]
    assert len(loaded) == 8
    for task in loaded.values():
        assert task.get_config("filter_list") or task.get_config("output_type")
        assert len(task.eval_docs) == 10


def test_a_folder_of_rows_is_read_and_a_wrong_one_is_a_sentence(tmp_path):
    from evaluation.lm_eval_tasks import functions

    row = {"text": "Sales rose .", "label": 1}
    (tmp_path / "tfns.jsonl").write_text(json.dumps(row) + "\n")
    which = {"challenge": "finance", "set": "tfns", "suite": "standard", "version": 1.0}
    rows = functions.documents(**which, data_dir=str(tmp_path))["test"]
    assert rows[0]["target"] == "positive"
    with pytest.raises(UserError, match=r"fpb.jsonl"):
        functions.documents(**{**which, "set": "fpb"}, data_dir=str(tmp_path))


def test_our_code_tasks_are_not_lm_evals_humaneval():
    """What the docs say differs: the prompt's white space, and where an answer ends."""
    folder = Path(lm_eval.tasks.__path__[0]) / "humaneval"
    theirs = (folder / "humaneval.yaml").read_text()
    assert 'doc_to_text: "{{prompt}}"' in theirs
    stops = sets.of_challenge("code").named()["humaneval"].form("standard").config()
    assert "\n@" in stops["generation_kwargs"]["until"]
    assert "\\n@" not in theirs


@pytest.mark.full
def test_the_unchanged_command_runs_a_task(tiny, tmp_path):
    printed = subprocess.run(
        [sys.executable, "-m", "evaluation.lm_eval_tasks"], capture_output=True, text=True
    )
    words = ["--model", "hf", "--model_args", f"pretrained={tiny},dtype=float32", "--limit", "2"]
    words += ["--tasks", "flowertune_finance_fpb_standard", "--device", "cpu"]
    words += ["--include_path", printed.stdout.strip(), "--metadata", '{"sample": true}']
    words += ["--output_path", str(tmp_path)]
    command = [sys.executable, "-m", "lm_eval", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "flowertune_finance_fpb_standard" in done.stdout
