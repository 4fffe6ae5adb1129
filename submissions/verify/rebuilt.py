"""Files that follow from other files: made again by what makes bundles, to be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.rules.checkpoint import digest_of_parts
from flowertune.run.files import RunFiles
from submissions import layout
from submissions.bundle import contents, statement
from submissions.bundle.sources import Sources
from submissions.formats import card as cards
from submissions.formats import croissant as croissants
from submissions.formats import every_eval_ever as records
from submissions.formats import hub_results as hub
from submissions.formats import provenance as provenances

METHOD = "\0method\0"  # stands where a card has the participant's own text; in no other text


@dataclass(frozen=True)
class Origin:
    """What files are made of again.

    Attributes
    ----------
    folder
        An unpacked bundle; of it the rows of the score are read.
    manifest, run, rounds, results, submission
        The content of the adapter's manifest, run.json, rounds.jsonl, results.json and
        submission.json.
    app
        Every file of the app, by its name in it.
    """

    folder: Path
    manifest: dict[str, Any]
    run: dict[str, Any]
    rounds: list[dict[str, Any]]
    results: dict[str, Any]
    submission: dict[str, Any]
    app: dict[str, bytes]

    @property
    def said(self) -> dict[str, Any]:
        """What submission.json says, with scores in the order of the sets, as it was made."""
        scores = self.submission["scores"]
        ordered = {name: scores[name] for name in self.results["sets"] if name in scores}
        return {**self.submission, "scores": ordered}

    @property
    def sources(self) -> Sources:
        """The same, as what makes bundles takes it."""
        weights = self.manifest["adapter-sha256"]
        return Sources(
            RunFiles(self.folder / layout.RUN, self.run, self.rounds),
            self.folder / layout.ADAPTER,
            self.submission["checkpoint"]["chosen"],
            self.manifest,
            digest_of_parts(self.manifest["adapter-config-sha256"], weights),
            weights,
            self.folder / layout.RESULTS,
            self.results,
            self.app,
        )


def stated(origin: Origin) -> dict[str, Any]:
    """Return what in submission.json is no word of the participant's, by its path."""
    manifest, sources = origin.manifest, origin.sources
    return {
        "template-version": manifest.get("template-version"),
        "checkpoint.digest": sources.digest,
        "checkpoint.round": manifest["round"],
        "weights.sha256": sources.weights_sha256,
        "created": statement.created(origin.results),
    }


def environment(origin: Origin) -> dict[str, Any]:
    """Return what environment.json says."""
    return contents.environment(origin.manifest)


def fingerprints(origin: Origin) -> dict[str, Any]:
    """Return what fingerprints.json says."""
    return contents.fingerprints(origin.sources)


def croissant(origin: Origin) -> bytes:
    """Return croissant.json."""
    return croissants.croissant(origin.sources)


def provenance(origin: Origin, sums: Mapping[str, str]) -> bytes:
    """Return provenance.json, given the sha256 of each file of the bundle by its name."""
    weights = origin.manifest["adapter-sha256"]  # also where they are kept elsewhere
    return provenances.provenance(origin.sources, {**sums, layout.WEIGHTS: weights})


def card(origin: Origin, method: str = METHOD) -> bytes:
    """Return the model card."""
    return cards.card(origin.sources, origin.said, method)


def hub_results(origin: Origin, owner: str) -> dict[str, bytes]:
    """Return the file of .eval_results, by its name, given whose benchmark it names."""
    made = hub.hub_results(origin.results, origin.said, owner)
    return {f"{layout.HUB_RESULTS}/{hub.file_name(origin.submission['challenge'])}": made}


def every_eval_ever(origin: Origin, named: str) -> dict[str, bytes]:
    """Return both files of the record of Every Eval Ever, given what it calls the model."""
    made = records.records(origin.sources, origin.said, named)
    return {f"{layout.EVERY_EVAL_EVER}/{name}": content for name, content in made.items()}
