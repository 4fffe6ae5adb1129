"""Read bundles for the board: each is verified first, and an INVALID one is read no further."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import challenges
from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile
from submissions import layout
from submissions.archive import OpenedBundle, UnusableBundle, opened
from submissions.board import card
from submissions.board.entry import Curve, Entry, Refused, SetScore
from submissions.board.standing import Standing, standing
from submissions.bundle.statement import hardware_of, hours_of, slug
from submissions.convergence.reference import Reference
from submissions.findings import SIGNED_BY, Finding, Report, ordered
from submissions.verify import similarity
from submissions.verify.check import verified

SCORED = "checkpoint"
POINTS = 200  # of a curve that are drawn
DIFFERENCE = 64 * 2**10  # characters of a difference that are shown
_CARD_BYTES = 4 * 2**20
_DIFFERENCE_BYTES = 64 * 2**20
# What tells runs apart; the rest is in the bundle.
_SETTINGS = (
    "model.quantization", "model.lora.peft-lora-r", "model.lora.peft-lora-alpha",
    "model.lora.target-modules", "model.lora.use-dora", "train.learning-rate-max",
    "train.learning-rate-min", "train.seq-length", "train.transport",
    "train.training-arguments.per-device-train-batch-size",
    "train.training-arguments.gradient-accumulation-steps",
    "train.training-arguments.max-steps", "strategy.fraction-train", "aggregation.mode",
    "num-server-rounds", "seed",
)  # fmt: skip


def read(
    bundles: Sequence[Path], standings: Standing | None = None, reference: Reference | None = None
) -> tuple[list[Entry], list[Refused]]:
    """Verify bundles; return what the board shows of the VALID ones, and the INVALID ones.

    Parameters
    ----------
    bundles
        Zips, or the folders of unpacked ones. One that is given twice counts once.
    standings
        Reports of what else was done to check them.
    reference
        Reference runs that losses are held against; by default those published with the rules.
    """
    entries: list[Entry] = []
    refused: list[Refused] = []
    for path, report in _verified(bundles, reference):
        found = standing(report, standings)
        if not found.valid:
            refused.append(_refused(found))
            continue
        try:
            with opened(path, weights=False) as bundle:
                entries.append(entry_of(bundle, found))
        except (UnusableBundle, UnusableFile, LookupError, TypeError, ValueError) as error:
            # Verified a moment ago: its file was exchanged, or the check and this part disagree.
            why = Finding(
                "structure", "error", "", f"It cannot be shown: {one_line(error)}.", "board"
            )
            refused.append(_refused(found, why))
    return entries, refused


def _verified(bundles: Sequence[Path], reference: Reference | None) -> list[tuple[Path, Report]]:
    """Verify bundles and compare them with each other; one that was there before is left out."""
    paths, found = [], []
    seen: set[str] = set()
    for path in bundles:
        one = verified(path, reference)
        if one.report.digest is None or one.report.digest not in seen:
            seen.add(one.report.digest or "")
            paths.append(path)
            found.append(one)
    places = [number for number, one in enumerate(found) if one.sketch is not None]
    alike = similarity.compare([one.sketch for one in found if one.sketch is not None])
    more = {places[place]: findings for place, findings in alike.items()}
    return [
        (path, replace(one.report, findings=ordered([*one.report.findings, *more.get(number, ())])))
        for number, (path, one) in enumerate(zip(paths, found, strict=True))
    ]


def _refused(report: Report, *more: Finding) -> Refused:
    team, challenge = (report.facts.get(key) for key in ("team", "challenge"))
    return Refused(
        one_line(report.bundle, 300),
        report.digest,
        one_line(team, 100) if isinstance(team, str) else "",
        one_line(challenge, 100) if isinstance(challenge, str) else "",
        (*report.findings, *more),
    )


def entry_of(bundle: OpenedBundle, report: Report) -> Entry:
    """Return what the board shows of a bundle that was verified, and found VALID.

    Raises
    ------
    UnusableFile, LookupError, TypeError, ValueError
        It is not the bundle that the report is about.
    """
    said, results = bundle.json(layout.SUBMISSION), bundle.json(layout.SCORES)
    run, manifest = bundle.json(layout.RUN_INFO), bundle.json(layout.MANIFEST)
    lines = list(bundle.lines(layout.ROUNDS))
    facts, digest = report.facts, report.digest or ""
    average, clean = facts["average"], facts.get("clean-average") or {}
    difference = bundle.text(layout.APP_DIFFERENCE, _DIFFERENCE_BYTES)
    last = lines[-1]
    return Entry(
        id=f"{slug(said['team'])}-{digest[:12]}",
        challenge=said["challenge"],
        rules=said["rules"],
        rules_version=said["rules-version"],
        division=said["division"],
        team=said["team"],
        model=manifest["base-model"]["name"],
        sets=list(_sets(said["challenge"], results, facts["scores"])),
        average=average["score"],
        average_low=average["interval-95"][0],
        average_high=average["interval-95"][1],
        clean_average=clean.get("score"),
        clean_low=clean.get("interval-95", ("", ""))[0],
        clean_high=clean.get("interval-95", ("", ""))[1],
        parameters=facts.get("parameters"),
        mib=float(facts["mib"]),
        budget_mib=run["budget-mib"],
        hours=float(said["hours"]),
        run_hours=hours_of(lines, said["checkpoint"]["round"]),
        hardware=said["hardware"],
        run_hardware=hardware_of(manifest["hardware"]),
        signed_by=facts.get(SIGNED_BY, ""),
        tier=report.reached,
        created=said["created"],
        bundle=report.bundle,
        digest=digest,
        checkpoint=said["checkpoint"]["digest"],
        chosen=said["checkpoint"]["chosen"],
        note=said["note"],
        rounds=said["checkpoint"]["round"],
        clients=run["clients-per-round"],
        supernodes=run["supernodes"],
        asked=sum(line["asked"] for line in lines),
        failed=sum(line["failed"] for line in lines),
        sent_bytes=last["sent-bytes"],
        received_bytes=last["received-bytes"],
        weights_link=said["weights"]["link"],
        states_link=said["states"]["link"],
        library=said["library"]["version"],
        loss=_curve(lines, "train-loss"),
        rate=_curve(lines, "learning-rate"),
        sent=_curve(lines, "total-mib"),
        settings=[
            (key, one_line(str(run["settings"][key]), 200))
            for key in _SETTINGS
            if key in run["settings"]
        ],
        method=_method(bundle),
        difference=difference[:DIFFERENCE],
        difference_cut=len(difference) > DIFFERENCE,
        changed=sorted(facts.get("app-changes", {}).items()),
        contamination=_contamination(results["contamination"]),
        findings=list(report.findings),
        replay=_replay(facts.get("replay")),
    )


def _sets(
    challenge: str, results: Mapping[str, Any], scores: Mapping[str, Any]
) -> Iterator[SetScore]:
    overlap = results["contamination"]
    rooms = overlap["sets"] if overlap["checked"] is True else {}
    for item in challenges.load(challenge)["evaluation"]["sets"]:
        name = item["set"]
        score, room = scores[name], rooms.get(name, {})
        clean = (room.get("scores") or {}).get(SCORED) or {}
        yield SetScore(
            name=name,
            title=item["title"],
            score=score["score"],
            low=score["interval-95"][0],
            high=score["interval-95"][1],
            rows=results["sets"][name]["rows"],
            clean=clean.get("score"),
            clean_rows=room.get("clean"),
            unparseable=score.get("unparseable-answers"),
        )


def _curve(lines: Sequence[Mapping[str, Any]], key: str) -> Curve:
    points = [(line["round"], float(line[key])) for line in lines if line[key] is not None]
    step = max(1, -(-len(points) // POINTS))
    # The last one says how it ended.
    return points[:-1:step] + points[-1:]


def _method(bundle: OpenedBundle) -> str:
    if layout.CARD not in bundle:
        return ""
    return card.method(bundle.text(layout.CARD, _CARD_BYTES))


def _contamination(found: Mapping[str, Any]) -> str:
    if found["checked"] is not True:
        return f"Not checked: {one_line(str(found.get('reason')), 300)}."
    both = sum(room["overlapping"] for room in found["sets"].values())
    rows = sum(room["rows"] for room in found["sets"].values())
    return f"{both:,} of {rows:,} evaluation rows are also training rows."


def _replay(found: Any) -> Sequence[tuple[str, str]]:
    """What a replay report says of its rounds: which one, and with what outcome."""
    if not isinstance(found, dict) or not isinstance(found.get("results"), list):
        return []
    return [
        (one_line(str(one.get("round")), 20), one_line(str(one.get("verdict")), 100))
        for one in found["results"]
        if isinstance(one, dict)
    ]
