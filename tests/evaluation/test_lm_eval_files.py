"""lm-eval's own tools read the files that a score leaves for them."""

import json
import sys
import types
from pathlib import Path

import pytest
from lm_eval.loggers import WandbLogger, wandb_logger
from lm_eval.utils import (
    get_file_task_name,
    get_latest_filename,
    get_results_filenames,
    get_sample_results_filenames,
)

from evaluation import cli

FORMS = [("finance", "official"), ("finance", "standard"), ("code", "standard")]


@pytest.fixture(scope="module")
def written(finance_checkpoint, tmp_path_factory):
    """Folders of lm-eval's files by challenge and suite, with the pass that they are of."""
    from evaluation import run

    made = {}
    score, kept = run.score, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "score", lambda *words: kept.append(score(*words)) or kept[-1])
        for challenge, suite in FORMS:
            folder = tmp_path_factory.mktemp("out")
            words = [finance_checkpoint, "--unofficial", "--sample", "--suite", suite]
            words += ["--limit", "2", "--answer-tokens", "3", "--quantization", "0"]
            words += ["--sets", "fpb,tfns" if challenge == "finance" else "mbpp"]
            cli.main(challenge, [str(word) for word in (*words, "--output", folder)])
            made[challenge, suite] = folder / "lm-eval" / "checkpoint", kept[-1]
    return made


@pytest.mark.parametrize("form", FORMS)
def test_results_carry_what_zeno_visualize_reads(written, form, finance_checkpoint):
    folder, one = written[form]
    files = [path.as_posix() for path in folder.iterdir()]
    results = json.loads(Path(get_latest_filename(get_results_filenames(files))).read_text())
    assert f"peft={finance_checkpoint}" in results["config"]["model_args"]
    assert "dtype=float32" in results["config"]["model_args"]
    assert results["model_name"] == str(finance_checkpoint)
    assert results["model_source"] == "hf"
    assert float(results["total_evaluation_time_seconds"]) >= one.seconds > 0
    for task, config in results["configs"].items():
        (file,) = [
            file
            for file in get_sample_results_filenames(files)
            if get_file_task_name(Path(file).name) == task
        ]
        for line in Path(file).read_text().splitlines():
            row = json.loads(line)
            assert {"doc_id", "target", "filter", "filtered_resps"} <= set(row)
            assert row["arguments"]["gen_args_0"]["arg_0"]
            assert config["output_type"] in ("generate_until", "multiple_choice")
            assert [row[metric["metric"]] for metric in config["metric_list"]]


class FakeWandb(types.ModuleType):
    """What the package wandb has, without an account or a network."""

    __version__ = "0.20.0"
    run = None

    def __init__(self):
        super().__init__("wandb")
        self.config, self.summary, self.logged = {}, {}, {}

    def init(self, **_):
        return self

    def log(self, values, step=None):
        self.logged |= values

    def log_artifact(self, artifact):
        self.logged[artifact.name] = artifact

    class Table:
        def __init__(self, columns):
            self.columns, self.rows = columns, []

        def add_data(self, *row):
            self.rows.append(row)

    class Artifact:
        def __init__(self, name, type):
            self.name = name

        def new_file(self, name, **_):
            return open("/dev/null", "w")


@pytest.mark.parametrize("form", FORMS)
def test_wandb_logger_takes_them(written, form, monkeypatch):
    folder, one = written[form]
    in_memory = one.lm_eval
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(wandb_logger, "get_wandb_printer", lambda: None)
    files = [path.as_posix() for path in folder.iterdir()]
    from_file = json.loads(Path(get_latest_filename(get_results_filenames(files))).read_text())
    for results in (from_file, in_memory):
        logger = WandbLogger()
        logger.post_init(results)
        logger.log_eval_result()
    logger.log_eval_samples(in_memory["samples"])
    tasks = list(in_memory["configs"])
    assert fake.config["cli_configs"]["model_args"]
    assert all(f"{task}/acc" in str(list(fake.logged)) for task in tasks)
    assert {f"{task}_eval_results" for task in tasks} <= set(fake.logged)
