"""The text of the task files."""

from types import FunctionType
from typing import Any

import yaml

import challenges
from evaluation import sets, tasks
from evaluation.lm_eval_tasks import functions

# The standard suite is greedy whatever a model's generation_config says.
_GREEDY = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _name_function(dumper: _Dumper, function: FunctionType) -> yaml.Node:
    return dumper.represent_scalar("!function", f"{function.__module__}.{function.__name__}")


def _one_line(dumper: _Dumper, text: str) -> yaml.Node:
    style = '"' if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(FunctionType, _name_function)
_Dumper.add_representer(str, _one_line)


def texts() -> dict[str, str]:
    """Every task file: its name and what it holds."""
    return {
        f"{tasks.name(challenge, item, suite)}.yaml": text(challenge, item, suite)
        for challenge in challenges.names()
        if challenges.load(challenge)["evaluation"]["sets"]
        for item in sets.of_challenge(challenge).sets
        for suite in sets.SUITES
    }


def text(challenge: str, item: sets.EvalSet, suite: str) -> str:
    """The task file of one set in a suite."""
    form = item.form(suite)
    config = form.config()
    task = {
        "task": tasks.name(challenge, item, suite),
        "tag": f"flowertune_{challenge}_{suite}".replace("-", "_"),
        "custom_dataset": functions.documents,
        "test_split": "test",
        **config,
        "process_results": functions.process_results,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "num_fewshot": 0,
        "metadata": {
            "version": tasks.VERSION,
            "challenge": challenge,
            "set": item.name,
            "suite": suite,
        },
    }
    if "generation_kwargs" in config:
        task["generation_kwargs"] = _generation(config["generation_kwargs"], suite)
    if form.program is not None:
        step = {"function": "custom", "filter_fn": functions.run_programs}
        task["filter_list"] = [{"name": "run", "filter": [step]}]
    return yaml.dump(task, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _generation(kwargs: dict[str, Any], suite: str) -> dict[str, Any]:
    """The part of our generation_kwargs that lm-eval's own models understand."""
    names = ("until", "do_sample", "temperature", "top_p", "max_length")
    known = {name: kwargs[name] for name in names if name in kwargs}
    # Beside a max_length, the number says only how much room to leave; an answer letter is a token.
    known["max_gen_toks"] = 1
    if kwargs["do_sample"]:
        known["top_k"] = 0
    return {**known, **_GREEDY} if suite == "standard" else known
