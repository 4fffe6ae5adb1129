"""The same facts in other formats: none of them says anything else than the run and the rows."""

from collections.abc import Mapping
from typing import Any

import yaml

from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile
from flowertune.rules.values import same, shown
from submissions import layout
from submissions.verify.case import Case
from submissions.verify.rows import SCORED

_YAML_BYTES = 256 * 2**10
_CARD_BYTES = 4 * 2**20
_FENCE = "---\n"


def check(case: Case) -> None:
    """Compare every other form of the results and of the run with the bundle's own files."""
    _provenance(case)
    _croissant(case)
    scores = case.facts.get("scores")
    if not scores or case.results is None:
        return  # there is nothing sure to compare with
    numbers = {name: float(one["score"]) for name, one in scores.items()}
    average = float(case.facts["average"]["score"])
    _hub_results(case, {**numbers, "average": average})
    _card(case, numbers)
    _every_eval_ever(case, numbers)


def _wrong(case: Case, place: str, sentence: str) -> None:
    case.error("score", "formats", place, sentence)


def _hub_results(case: Case, scores: Mapping[str, float]) -> None:
    for name in case.bundle.below(layout.HUB_RESULTS):
        try:
            entries = _yaml(case.bundle.text(name, _YAML_BYTES))
        except UnusableFile as error:
            case.error("structure", "unreadable", name, f"The file {error}.")
            continue
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            _wrong(case, name, "The file is no list of results.")
            continue
        given = {}
        for one in entries:
            dataset = one.get("dataset")
            task = dataset.get("task_id") if isinstance(dataset, dict) else None
            given[str(task)] = one.get("value")
        for task in sorted(given.keys() | scores.keys()):
            if not _equal(given.get(task), scores.get(task)):
                _wrong(
                    case, name,
                    f"The value of {shown(task)} is {shown(given.get(task))}, and the rows give "
                    f"{shown(scores.get(task))}.",
                )  # fmt: skip


def _card(case: Case, scores: Mapping[str, float]) -> None:
    """Compare the metadata of the model card; its text is the participant's."""
    name = layout.CARD
    if name not in case.bundle:
        return
    try:
        text = case.bundle.text(name, _CARD_BYTES)
        head = text.removeprefix(_FENCE).partition(f"\n{_FENCE}")[0]
        body = _yaml(head) if text.startswith(_FENCE) and len(head) < _YAML_BYTES else None
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    try:
        (model,) = body["model-index"]  # type: ignore[index]
        given = [
            metric["value"]
            for one in model["results"]
            for metric in one["metrics"]
            if metric["type"] in ("accuracy", "pass@1", "pass_at_1")
        ]
    except (TypeError, KeyError, ValueError):
        _wrong(case, name, "The card has no evaluation results in its metadata.")
        return
    wanted = list(scores.values())
    if len(given) != len(wanted) or not all(map(_equal, given, wanted)):
        _wrong(case, name, f"The card says {shown(given)}, and the rows give {shown(wanted)}.")


def _every_eval_ever(case: Case, scores: Mapping[str, float]) -> None:
    names = case.bundle.below(layout.EVERY_EVAL_EVER)
    records = [name for name in names if name.endswith(".json")]
    if len(records) != 1 or len(names) != 2:
        _wrong(case, layout.EVERY_EVAL_EVER, f"There are {len(names)} files, and a record is two.")
        return
    (name,) = records
    samples = name.removesuffix(".json") + "_samples.jsonl"
    try:
        body = case.bundle.json(name)
        given = [one["score_details"]["score"] for one in body["evaluation_results"]]
        said = body["detailed_evaluation_results"]["checksum"]
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    except (KeyError, TypeError):
        _wrong(case, name, "The file is no record of Every Eval Ever.")
        return
    wanted = list(scores.values())
    if len(given) < len(wanted) or not all(map(_equal, given, wanted)):
        _wrong(case, name, f"The record says {shown(given)}, and the rows give {shown(wanted)}.")
    if case.bundle.sums.get(samples) != said:
        _wrong(case, samples, "The rows are not those that the record has a checksum of.")


def _provenance(case: Case) -> None:
    """The subjects and byproducts of the statement are the files of the bundle."""
    name = layout.PROVENANCE
    if name not in case.bundle:
        return
    try:
        body = case.bundle.json(name)
        about = body["predicate"]
        named = [*body["subject"], *about["runDetails"]["byproducts"]]
        digests = {one["name"]: one["digest"]["sha256"] for one in named}
        settings = about["buildDefinition"]["externalParameters"]["settings"]
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    except (KeyError, TypeError):
        case.error("structure", "provenance", name, "The file is no in-toto statement of a run.")
        return
    sums: dict[str, Any] = dict(case.bundle.sums)
    if case.manifest is not None:
        sums.setdefault(layout.WEIGHTS, case.manifest["adapter-sha256"])
    for file in (layout.WEIGHTS, layout.MANIFEST, layout.SCORES, layout.CHAIN):
        if digests.get(file) is None:
            case.error("structure", "provenance", name, f"The statement does not name {file}.")
    for file, digest in sorted(digests.items(), key=lambda pair: str(pair[0])):
        if sums.get(file) != digest:
            case.error(
                "structure", "provenance", name,
                f"The sha256 of {shown(file)} is {shown(sums.get(file))}, and the statement says "
                f"{shown(digest)}.",
            )  # fmt: skip
    if case.manifest is not None and not same(
        _sorted(settings), _sorted(case.manifest["settings"])
    ):
        case.error("structure", "provenance", name, "Its settings are not those of the manifest.")


def _croissant(case: Case) -> None:
    name = layout.CROISSANT
    if name not in case.bundle:
        return
    try:
        body = case.bundle.json(name)
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    text = repr(body)
    rows = (case.manifest or {}).get("rows", {})
    for partition, of in sorted(rows.items()):
        if of["sha256"] not in text:
            case.error(
                "structure", "croissant", name,
                f"The description has not the fingerprint of partition {partition}.",
            )  # fmt: skip


def _sorted(value: Any) -> Any:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def _equal(given: Any, wanted: Any) -> bool:
    if type(given) not in (int, float) or wanted is None:
        return given is None and wanted is None
    return abs(given - wanted) < 0.005


def _yaml(text: str) -> Any:
    """Return what plain YAML says; an alias could unfold to more than fits into memory.

    Raises
    ------
    UnusableFile
        It is no YAML, or has an alias.
    """
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UnusableFile("has an alias, and no such file needs one")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnusableFile(f"is no YAML ({one_line(error, 100)})") from None


def lm_eval(case: Case, rows: Mapping[str, list[Any]], tasks: Mapping[str, str]) -> None:
    """Compare lm-eval's own samples with the rows of each set.

    Parameters
    ----------
    rows
        Answers of each set, in order.
    tasks
        What lm-eval calls each set's task.
    """
    names = case.bundle.below(layout.LM_EVAL)
    for name, answers in rows.items():
        begin = f"{layout.LM_EVAL}/samples_{tasks[name]}_"
        files = [file for file in names if file.startswith(begin)]
        if len(files) != 1:
            _wrong(
                case, layout.LM_EVAL,
                f"There are {len(files)} files of samples for {name}, and lm-eval writes one.",
            )  # fmt: skip
            continue
        try:
            samples = {sample.get("doc_id"): sample for sample in case.bundle.lines(files[0])}
        except UnusableFile as error:
            case.error("structure", "unreadable", files[0], f"The file {error}.")
            continue
        for number, answer in enumerate(answers):
            sample = samples.get(number, {})
            responses = sample.get("resps")
            given = (
                responses[0] if isinstance(responses, list) and len(responses) == 1 else responses
            )
            texts = [one for one in answer.responses if isinstance(one, str)]
            if sample.get("doc") != answer.document or (texts and given != texts):
                _wrong(
                    case, f"{files[0]}: row {number}",
                    f"The question or the answer is not that of {layout.ROWS}/{name}.jsonl "
                    f"({SCORED}).",
                )  # fmt: skip
