"""Class score: scores follow from the answers, the answers from what a decoding can give."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import combinations
from typing import Any

import challenges
from challenges import record
from evaluation import report, sets
from evaluation.sets import Challenge, Form
from flowertune.base.hashing import json_sha256
from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile
from flowertune.models.quantized import asked_for
from flowertune.rules.checkpoint import digest_of_parts
from flowertune.rules.manifest import SEAL
from flowertune.rules.pinned import OTHER, UNVERIFIED, VERIFIED
from flowertune.rules.values import same, shown
from submissions import layout
from submissions.verify import contamination, lm_eval, similarity
from submissions.verify.case import Case, differences
from submissions.verify.fields import TIME, moment
from submissions.verify.rows import MANY, SCORED, Made, of_set

_MODELS = ("base", SCORED)
_DTYPE, _HUB, _BACKEND = "float32", "https://huggingface.co", "transformers"
_CLOCKS = timedelta(hours=1)  # by which those of two machines may differ
_SURE = 1000  # rows from which two equal accuracies are


def check(case: Case) -> None:
    """Recompute every score of a bundle, and look at the answers behind them."""
    results = case.results
    if results is None:
        return
    challenge = results["challenge"]
    about = challenges.load(challenge) if challenge in challenges.names() else {}
    facts = {one["set"]: one for one in (about.get("evaluation") or {}).get("sets", ())}
    if not facts:
        case.error(
            "score",
            "challenge",
            layout.SCORES,
            f"challenge is {shown(challenge)}, and there are scores for "
            f"{', '.join(sets.scored_challenges())}.",
        )
        return
    known = sets.of_challenge(challenge)
    if not _shape(case, results, known):
        return
    # The table and the averages follow the challenge's order, whatever JSON's is.
    results = {**results, "sets": {one.name: results["sets"][one.name] for one in known.sets}}
    _official(case, results, known)
    _computed(case, results, known)
    _pinned(case, results, known)
    _times(case, results)
    _files(case, known)
    made = {}
    for item in known.sets:
        one = of_set(case, results, item, facts[item.name])
        if one is not None:
            made[item.name] = one
    if case.unpinned:
        case.note(
            "score", "unverified", f"{layout.SCORES}: sets",
            f"The rules version has no hash of the questions of {', '.join(case.unpinned)} on "
            "record: that these are the official ones is unverified.",
        )  # fmt: skip
    if len(made) == len(known.sets):
        of_sets = {name: one.answers[SCORED] for name, one in made.items()}
        names = {
            item.name: sets.task_name(challenge, item, results["suite"]) for item in known.sets
        }
        lm_eval.check(case, of_sets, names)
        case.answers = similarity.sampled(
            [
                (name, number, repr(answer.responses))
                for name, one in made.items()
                for number, answer in enumerate(one.answers[SCORED])
            ]
        )
        _averages(case, results, made, about["evaluation"]["average"])
        _equal(case, made)
        _table(case, results)
        case.facts["scores"] = {name: one.result["scores"][SCORED] for name, one in made.items()}
        case.facts["average"] = results["average"]["scores"][SCORED]
        _claimed(case, results)


def _shape(case: Case, results: Mapping[str, Any], known: Challenge) -> bool:
    models = results["models"]
    place = layout.SCORES
    if models not in ([SCORED], [*_MODELS]):
        case.error(
            "score",
            "models",
            place,
            f"models is {shown(models)}, which has to be ['checkpoint'] or ['base', 'checkpoint'].",
        )
        return False
    wanted = [item.name for item in known.sets]
    if sorted(results["sets"]) != sorted(wanted):
        case.error(
            "score",
            "sets",
            place,
            f"There are scores of {shown(list(results['sets']))}, and the challenge is "
            f"scored on {', '.join(wanted)}.",
        )
        return False
    if results["suite"] not in sets.SUITES:
        case.error(
            "score",
            "suite",
            place,
            f"suite is {shown(results['suite'])}, which is none of {', '.join(sets.SUITES)}.",
        )
        return False
    for name, one in results["sets"].items():
        if sorted(one["scores"]) != sorted(models):
            case.error(
                "score",
                "models",
                f"{place}: sets.{name}.scores",
                f"There are scores of {shown(sorted(one['scores']))}, and models is "
                f"{shown(models)}.",
            )
            return False
    return True


def _official(case: Case, results: Mapping[str, Any], known: Challenge) -> None:
    """Whether the computation was the official one, as far as the result says."""
    place = layout.SCORES
    if results["suite"] != "official":
        case.error(
            "score",
            "suite",
            place,
            f"suite is {shown(results['suite'])}, and a leaderboard score is of the suite "
            "official.",
        )
    for key in ("unofficial", "deviations"):
        if results[key]:
            case.error(
                "score",
                "official",
                f"{place}: {key}",
                f"The scorer says that the score is not official: "
                f"{one_line('; '.join(results[key]), 300)}.",
            )
    provenance, how = results["provenance"], asked_for(known.quantization)
    samples = {one.get("samples-per-row") for one in results["sets"].values()}
    batched = known.replay_batch is not None and results["suite"] == "official"
    wanted = {
        "quantization": known.quantization,
        "dtype": _DTYPE,
        "limit": None,
        "answer-tokens": None,
        "seed": known.seed,
        "hub": _HUB,
        "backend": _BACKEND,
        "official-batching": batched,
        "quantization-type": how and how.kind,
        "quantized-by": how and "the scorer",
        "samples": max(samples, key=str) if samples else None,
    }
    for key, value in wanted.items():
        if not same(provenance.get(key), value):
            case.error(
                "score",
                "official",
                f"{place}: provenance.{key}",
                f"{key} is {shown(provenance.get(key))}, and an official score has {shown(value)}.",
            )
    batching = "official" if batched else None
    case.differ(
        "score",
        "official",
        f"{place}: decoding.batching",
        "batching",
        results["decoding"].get("batching"),
        batching,
        "that of an official score",
    )
    for name, one in results["sets"].items():
        if one["full"] is not True or one["data"]["status"] != "official":
            case.error(
                "score",
                "rows",
                f"{place}: sets.{name}",
                f"The set is {shown(one['data']['status'])}, and a leaderboard score is of "
                "the full official rows.",
            )


def _computed(case: Case, results: Mapping[str, Any], known: Challenge) -> None:
    """Whether it is the bundle's adapter that was scored, with the tasks of this library."""
    place, provenance = layout.SCORES, results["provenance"]
    adapter = provenance.get("adapter")
    if not isinstance(adapter, dict):
        case.error(
            "score",
            "adapter",
            f"{place}: provenance.adapter",
            "There is no adapter in the scorer's provenance: the scores are those of a "
            "model alone.",
        )
        adapter = {}
    elif case.manifest is not None:
        # Even where the weights are kept elsewhere, the manifest holds their sha256.
        weights, config = case.manifest["adapter-sha256"], case.manifest["adapter-config-sha256"]
        wanted = {
            "digest": digest_of_parts(config, weights),
            "sha256": weights,
            "manifest-sha256": case.manifest.get(SEAL),
            "merged": known.merge,
        }
        for key, value in wanted.items():
            case.differ(
                "score",
                "adapter",
                f"{place}: provenance.adapter",
                key,
                adapter.get(key),
                value,
                "that of the adapter in the bundle",
            )
    base = provenance.get("base-model")
    if case.manifest is not None and isinstance(base, dict):
        made = case.manifest["base-model"]
        keys = ["name", "revision"]
        # Where both read the hub, a branch pointed at one commit for both.
        keys += ["commit"] if base.get("commit") and made.get("commit") else []
        for key in keys:
            case.differ(
                "score",
                "base-model",
                f"{place}: provenance.base-model",
                key,
                base.get(key),
                made.get(key),
                "the one that was trained on",
            )
    if case.manifest is not None:
        rules = {"name": case.manifest["rules"], "version": case.manifest["rules-version"]}
        case.differ(
            "score",
            "rules",
            f"{place}: rules",
            "rules",
            results["rules"],
            rules,
            "what the run was made under",
        )
    tasks = {item.name: _task(item.form(results["suite"])) for item in known.sets}
    for name, task in tasks.items():
        for key, given, wanted in (
            ("tasks", provenance["tasks"].get(name), task),
            ("task-sha256", provenance["task-sha256"].get(name), json_sha256(task)),
        ):
            if given != wanted:
                case.error(
                    "score",
                    "tasks",
                    f"{place}: provenance.{key}.{name}",
                    "The task is not the one of this library, so another prompt, limit or "
                    "rule was used.",
                )


def _pinned(case: Case, results: Mapping[str, Any], known: Challenge) -> None:
    """What the score says of pinned rows is what the record makes of them."""
    rules = results["rules"]["name"] or "", results["rules"]["version"] or ""
    on_record = record.evaluation_data(*rules).get(results["challenge"], {})
    pins = record.pinned(*rules).get(results["challenge"], {})
    said, sets_of = results.get("pinned"), results["sets"]
    said = said if isinstance(said, dict) else {}
    training = results["contamination"].get("training")
    compared = training.get("sha256") if isinstance(training, dict) else None
    rows = {n: _status(sets_of[n]["data"]["rows-sha256"], on_record.get(n)) for n in sets_of}
    wanted: dict[str, Any] = {
        "evaluation-rows": rows,
        "rows-compared": _status(compared, pins.get("training", {}).get("sha256")),
    }
    if case.manifest is not None:
        own = case.manifest["pinned"] if isinstance(case.manifest.get("pinned"), dict) else {}
        wanted["rows-trained-on"] = own.get("training-rows")
    if "model" not in pins:
        wanted["base-model"] = UNVERIFIED
    for key, value in wanted.items():
        if said.get(key) != value:
            case.error(
                "score", "pinned", f"{layout.SCORES}: pinned.{key}",
                f"The score says {shown(said.get(key))}, and the published record gives "
                f"{shown(value)}.",
            )  # fmt: skip
    for name, one in sets_of.items():
        given, wanted_row = one["data"].get("on-record"), on_record.get(name)
        if wanted_row is not None and given is not (one["data"]["rows-sha256"] == wanted_row):
            case.error(
                "score", "pinned", f"{layout.SCORES}: sets.{name}.data",
                f"on-record is {shown(given)}, and the rules have these rows on record or not.",
            )  # fmt: skip


def _status(given: str | None, wanted: str | None) -> str:
    if wanted is None or given is None:
        return UNVERIFIED
    return VERIFIED if given == wanted else OTHER


def _times(case: Case, results: Mapping[str, Any]) -> None:
    """Nobody scores a checkpoint before its round was done."""
    if case.rounds is None or case.manifest is None:
        return
    place, begun = f"{layout.SCORES}: provenance.started", results["provenance"].get("started")
    if not TIME.fits(begun):
        case.error("score", "times", place, f"started is {shown(begun)}, which is no time in UTC.")
        return
    number = case.manifest["round"]
    saved = next((line["time"] for line in case.rounds if line["round"] == number), None)
    if saved is not None and moment(begun) + _CLOCKS < moment(saved):
        case.error(
            "score", "times", place,
            f"The score was begun {begun}, and round {number} was done {saved}.",
        )  # fmt: skip


def _files(case: Case, known: Challenge) -> None:
    wanted = {f"{layout.ROWS}/{item.name}.jsonl" for item in known.sets}
    for name in case.bundle.below(layout.ROWS):
        if name not in wanted:
            case.error(
                "structure",
                "unknown-file",
                name,
                "The file has the rows of no set of the challenge.",
            )


def _task(form: Form) -> dict[str, Any]:
    plain = {key: value for key, value in form.config().items() if not callable(value)}
    return {"version": sets.VERSION, **plain}


def _averages(
    case: Case, results: Mapping[str, Any], made: Mapping[str, Made], published: str
) -> None:
    rows = {name: one.result for name, one in made.items()}
    wanted = report.averages(rows, results["models"])
    for path, given, value in differences(results["average"], wanted):
        check = "interval" if "interval" in path or "error" in path else "average"
        case.error(
            "score",
            check,
            f"{layout.SCORES}: average.{path}",
            f"The value is {shown(given)}, and the sets give {shown(value)}.",
        )
    official = results["suite"] == "official" and not results["deviations"]
    full = all(one["full"] for one in results["sets"].values())
    case.differ(
        "score",
        "facts",
        f"{layout.SCORES}: published-average",
        "published-average",
        results.get("published-average"),
        published if official and full else None,
        "the challenge's",
    )
    contamination.clean_scores(case, results, made)


def _equal(case: Case, made: Mapping[str, Made]) -> None:
    """Flag sets with the same accuracy, where chance makes that unlikely."""
    scored = {name: one.result["scores"][SCORED]["score"] for name, one in made.items()}
    sizes = {name: one.result["rows"] for name, one in made.items()}
    pairs = [
        (one, other)
        for one, other in combinations(scored, 2)
        if scored[one] == scored[other] and min(sizes[one], sizes[other]) >= _SURE
    ]
    all_alike = len(scored) > 2 and len(set(scored.values())) == 1
    if all_alike and min(sizes.values()) >= MANY:
        pairs = [(next(iter(scored)), "every other set")]
    for one, other in pairs:
        case.warn(
            "score",
            "identical-accuracies",
            layout.SCORES,
            f"{one} and {other} have the same accuracy, {scored[one]}, which chance seldom gives.",
        )


def _table(case: Case, results: dict[str, Any]) -> None:
    if layout.TABLE not in case.bundle:
        return  # structure says so
    try:
        given = case.bundle.text(layout.TABLE)
        wanted = report.markdown(results)
    except (UnusableFile, KeyError, TypeError, ValueError, AttributeError, IndexError):
        given, wanted = "", None
    if wanted is None or given.rstrip("\n") != wanted.rstrip("\n"):
        case.error(
            "score", "table", layout.TABLE, "The table is not the one that results.json gives."
        )


def _claimed(case: Case, results: Mapping[str, Any]) -> None:
    """Compare submission.json with the recomputed scores."""
    if case.submission is None:
        return
    place = layout.SUBMISSION
    scores = {name: one["score"] for name, one in case.facts["scores"].items()}
    case.differ(
        "score",
        "claimed",
        f"{place}: scores",
        "scores",
        case.submission["scores"],
        scores,
        "what the rows give",
    )
    case.differ(
        "score",
        "claimed",
        f"{place}: average",
        "average",
        case.submission["average"],
        case.facts["average"]["score"],
        "what the rows give",
    )
