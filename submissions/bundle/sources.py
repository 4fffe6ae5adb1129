"""What a bundle is made of: a run, its checkpoint, its score and its app, held to each other."""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import checkpoint as checkpoints
from evaluation import sets
from evaluation.submission import opened
from flowertune.base.errors import UserError
from flowertune.base.text import counted, one_line
from flowertune.base.untrusted import UnusableFile, read_strict_json
from flowertune.rules.app_files import app_files, app_record
from flowertune.rules.checkpoint import saved_checkpoints, scores_folder
from flowertune.rules.manifest import problems as manifest_problems
from flowertune.run import chain
from flowertune.run.files import LEDGER, ROUNDS, RUN, RunFiles, read_run
from flowertune.run.find import home_of

RESULTS = "results.json"
LAST, BEST = "last", "best"
CHOSEN = "chosen"  # in run.json, where the run chose a checkpoint on rows that it held out
RESULTS_BYTES = 64 * 2**20
_SHOWN = 10  # files of an app that differ
# What a problem can be about, in the order in which it is told.
COMMAND, RUN_ITSELF, APP, SCORE, BUNDLE = "command line", "run", "app", "score", "bundle"
ABOUT = (COMMAND, RUN_ITSELF, APP, SCORE, BUNDLE)


@dataclass(frozen=True)
class Sources:
    """Everything that a bundle is made of; it was read once, and fits together.

    Attributes
    ----------
    run
        The run's folder, and what run.json and rounds.jsonl in it say.
    checkpoint
        The folder of the checkpoint.
    chosen
        "last", or "best" where the run itself chose it.
    manifest
        What its manifest says.
    digest, weights_sha256
        Of the checkpoint, and of its weights.
    scores, results
        The folder of its official score, and what results.json in it says.
    app
        Every file of the app that travels with a run, by its name.
    """

    run: RunFiles
    checkpoint: Path
    chosen: str
    manifest: dict[str, Any]
    digest: str
    weights_sha256: str
    scores: Path
    results: dict[str, Any]
    app: dict[str, bytes]

    @property
    def rounds(self) -> int:
        """How many rounds the run has done."""
        return int(self.run.last["round"])

    @property
    def challenge(self) -> str:
        """The challenge's name."""
        return self.manifest["challenge"]


@dataclass(frozen=True)
class Problem:
    """What is in the way of a bundle: a sentence, and what it is about, one of ``ABOUT``."""

    about: str
    sentence: str


class Unfit(UserError):
    """A bundle cannot be made; ``problems`` holds each thing that is in the way."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(" ".join(problem.sentence for problem in self.problems))


@dataclass(frozen=True)
class Found:
    """What was found for a bundle.

    Attributes
    ----------
    sources
        None where something is missing, so that no bundle can be made at all.
    missing
        Each such thing.
    wrong
        Each thing that keeps the bundle from being valid.
    unofficial
        Why the checkpoint is not official, one phrase each.
    manifest, results
        What the checkpoint's manifest and its score say; None where they cannot be read.
    """

    sources: Sources | None
    missing: list[Problem]
    wrong: list[Problem]
    unofficial: list[str]
    manifest: dict[str, Any] | None = None
    results: dict[str, Any] | None = None


def read(given: Path, scores: Path | None = None, app: Path | None = None) -> Sources:
    """Find and read everything that a bundle of a run is made of; see ``look``.

    Raises
    ------
    Unfit
        Something is missing or wrong; with every sentence.
    """
    found = look(given, scores, app)
    unofficial = [Problem(RUN_ITSELF, f"It is not official: {x}.") for x in found.unofficial]
    problems = [*found.missing, *found.wrong, *unofficial]
    if found.sources is None or problems:
        raise Unfit(problems)
    return found.sources


def look(given: Path, scores: Path | None = None, app: Path | None = None) -> Found:
    """Find everything that a bundle of a run is made of, and all that is missing or wrong.

    Parameters
    ----------
    given
        The run's folder, or that of a checkpoint in it.
    scores
        The folder of the checkpoint's score; None where the scorer puts it by default.
    app
        The app's folder; None for the one that the run's results lie in.

    Raises
    ------
    UserError
        ``given`` is no run's folder, or cannot be read.
    """
    named = given.resolve().name.startswith("peft_") and (given.parent / RUN).is_file()
    folder = given.parent if named else given
    run = read_run(folder)
    missing = [
        Problem(RUN_ITSELF, f"{folder / name} is missing: a bundle holds it as the run wrote it.")
        for name in (ROUNDS, LEDGER, chain.FILE)
        if not (folder / name).is_file()
    ]
    wrong = [Problem(RUN_ITSELF, sentence) for sentence in _of_run(run)]
    checkpoint, chosen, problems = _checkpoint(run, given if named else None)
    missing += [Problem(RUN_ITSELF, sentence) for sentence in problems]
    home = app or home_of(folder, Path())
    found, manifest, unofficial = None, None, []
    if checkpoint is not None:
        found, manifest, unofficial, problems = _described(checkpoint, run)
        missing += [Problem(RUN_ITSELF, sentence) for sentence in problems]
    files, changed, problems = _app(home, manifest)
    missing += [Problem(APP, sentence) for sentence in problems]
    wrong += [Problem(APP, sentence) for sentence in changed]
    place, results = None, None
    if found is not None:
        place, results, problems = _scores(found, scores, run, home)
        missing += [Problem(SCORE, sentence) for sentence in problems]
    if missing or checkpoint is None or found is None or manifest is None:
        return Found(None, missing, wrong, unofficial, manifest, results)
    if place is None or results is None:
        return Found(None, missing, wrong, unofficial, manifest, results)
    sources = Sources(
        run, checkpoint, chosen, manifest, found.digest, found.sha256, place, results, files
    )
    return Found(sources, [], wrong, unofficial, manifest, results)


def _of_run(run: RunFiles) -> list[str]:
    if run.status == "finished":
        return []
    # Late: what goes on with a run reads settings with flwr.
    from flowertune.run.origin import resume_command

    reason = f" ({one_line(run.about['reason'])})" if run.about.get("reason") else ""
    command = resume_command(run.folder, home_of(run.folder, Path()))
    more = f": {command} goes on with it" if command else ""
    done = run.last.get("round", 0)
    return [
        f"The run is {run.status}{reason} after round {done} of {run.planned}, and only a finished "
        f"run can be submitted{more}."
    ]


def _checkpoint(run: RunFiles, named: Path | None) -> tuple[Path | None, str, list[str]]:
    # A run also ends before its last planned round where the next would pass the budget.
    last = run.folder / f"peft_{run.last.get('round', 0)}"
    body = run.about.get(CHOSEN)
    best = run.folder / f"peft_{body.get('round')}" if isinstance(body, dict) else None
    allowed = {path.name: how for path, how in ((best, BEST), (last, LAST)) if path is not None}
    given = named or last
    how = allowed.get(given.resolve().name)
    if how is None:
        return None, LAST, [
            f"{given} is not the last checkpoint of its run, {last.name}, nor one that the run "
            "itself chose on rows it held out: give the run's folder."
        ]  # fmt: skip
    if given.is_dir():
        return given, how, []
    there = ", ".join(path.name for path in saved_checkpoints(run.folder)) or "none"
    return None, how, [f"{given} is missing, the run's last checkpoint (there: {there})."]


def _described(
    folder: Path, run: RunFiles
) -> tuple[checkpoints.Checkpoint | None, dict[str, Any] | None, list[str], list[str]]:
    """The checkpoint, its manifest, why it is not official, and why it cannot be read."""
    try:
        with opened(folder) as submission:
            found = checkpoints.describe(submission, str(run.about.get("challenge")))
            manifest = submission.manifest
    except UserError as error:
        return None, None, [], [f"{one_line(error, 500)}."]
    if manifest is None or manifest_problems(manifest):
        return found, None, [], [f"The checkpoint is not official: {x}." for x in found.reasons]
    return found, manifest, list(found.reasons), []


def _app(
    home: Path | None, manifest: dict[str, Any] | None
) -> tuple[dict[str, bytes], list[str], list[str]]:
    """The app's files, in what they are not those of the run, and why there are none."""
    if home is None:
        return {}, [], [
            "The run's results lie in no app's folder, and a bundle holds the app: name its folder "
            "with --app."
        ]  # fmt: skip
    try:
        files = app_files(home)
    except UserError as error:
        return {}, [], [str(error)]
    if manifest is None:
        return files, [], []
    own, used = app_record(files)["files"], manifest["app"]["files"]
    # A file that came later, such as a text on the method, is no part of what ran.
    files = {name: content for name, content in files.items() if name in used}
    changed = sorted(name for name in used if own.get(name) != used[name])
    if not changed:
        return files, [], []
    more = f" and {counted(len(changed) - _SHOWN, 'more')}" if len(changed) > _SHOWN else ""
    return files, [
        f"The app in {home} is not as it was for the run, in {', '.join(changed[:_SHOWN])}{more}: "
        "put those files back (git checkout), or name a folder that has them with --app."
    ], []  # fmt: skip


def _scores(
    found: checkpoints.Checkpoint, given: Path | None, run: RunFiles, home: Path | None
) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    challenge = str(run.about.get("challenge"))
    name = f"{challenge}-official"
    if given is not None:
        places = [given]
    else:
        below = scores_folder(found.digest) / name
        roots = [Path(), *([home] if home else []), run.folder, run.folder.parent]
        places = [root / below for root in roots]
    place = next((path for path in places if (path / RESULTS).is_file()), None)
    if place is None:
        return None, None, [
            f"There is no official score of {found.path} in {places[0]}: make it with "
            f"`{score_command(challenge, found.path)}` in this folder, or name the folder of its "
            f"{RESULTS} with --scores."
        ]  # fmt: skip
    try:
        results = read_strict_json(place / RESULTS, RESULTS_BYTES)
    except UnusableFile as error:
        return place, None, [f"{place / RESULTS} {error}: score the checkpoint again."]
    adapter = None
    with suppress(KeyError, TypeError):
        adapter = results["provenance"]["adapter"]["digest"]
    if adapter != found.digest:
        return place, None, [
            f"{place / RESULTS} is the score of another checkpoint ({str(adapter)[:12]}), and "
            f"{found.path} has the digest {found.digest[:12]}: name the folder of its score with "
            "--scores."
        ]  # fmt: skip
    return place, results, []


def score_command(challenge: str, checkpoint: Path) -> str:
    """Return the command that makes the official score of a checkpoint."""
    try:
        batched = sets.of_challenge(challenge).replay_batch is not None
        module = sets.module_name(challenge)
    except ModuleNotFoundError:
        batched, module = False, "evaluation.CHALLENGE"
    batches = " --official-batching" if batched else ""
    return f"python -m {module} {shlex.quote(str(checkpoint))}{batches}"
