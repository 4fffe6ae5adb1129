"""What the board shows of a submission: plain data, out of a verified bundle and its reports."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from submissions.findings import Finding

Curve = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class SetScore:
    """A model's score on one evaluation set; scores are percentages as texts with two decimals.

    Attributes
    ----------
    low, high
        The ends of the 95 % interval; empty for a published score.
    clean, clean_rows
        Score and number of the rows that are no training rows; None where that was not checked.
    unparseable
        The share of answers that are none of the allowed ones, in percent; None where there is no
        such thing.
    """

    name: str
    title: str
    score: str
    low: str = ""
    high: str = ""
    rows: int | None = None
    clean: str | None = None
    clean_rows: int | None = None
    unparseable: str | None = None


@dataclass(frozen=True)
class Entry:
    """A VALID submission, or a published baseline (``reference``), of which less is known.

    Attributes
    ----------
    id
        A name for files and addresses: lower-case letters, digits and hyphens.
    digest, checkpoint
        sha256 over the bundle's files; digest of the checkpoint. Empty for a reference.
    parameters
        Values of the adapter, counted in its weights; None where they are kept elsewhere.
    sets
        In the order of the challenge.
    average, clean_average
        Over the sets, in percent, as texts; the second is None where overlap was not checked.
    mib
        Communication of the whole run.
    hours, hardware
        As submission.json says.
    run_hours, run_hardware
        As the run noted them: the time of its rounds, and the machine of its server.
    signed_by
        The fingerprint of the key that signed the bundle; empty where none did.
    tier
        One of ``submissions.tiers.NAMES``; empty for a reference.
    created
        When the score was made: UTC, ISO 8601.
    loss, rate, sent
        By round: mean training loss, learning rate, MiB communicated so far.
    method
        The participant's Markdown; empty where there is none.
    difference
        The app against the template, as a unified difference; cut at a limit.
    changed
        Which files of the app are not the template's, and how they differ.
    """

    id: str
    challenge: str
    rules: str
    rules_version: str
    division: str
    team: str
    model: str
    sets: Sequence[SetScore]
    average: str
    average_low: str = ""
    average_high: str = ""
    clean_average: str | None = None
    clean_low: str = ""
    clean_high: str = ""
    parameters: int | None = None
    mib: float | None = None
    budget_mib: int | None = None
    hours: float | None = None
    run_hours: float | None = None
    hardware: str = ""
    run_hardware: str = ""
    signed_by: str = ""
    tier: str = ""
    created: str = ""
    reference: bool = False
    bundle: str = ""
    digest: str = ""
    checkpoint: str = ""
    chosen: str = ""
    note: str | None = None
    rounds: int | None = None
    clients: int | None = None
    supernodes: int | None = None
    asked: int | None = None
    failed: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    weights_link: str | None = None
    states_link: str | None = None
    library: str = ""
    loss: Curve = ()
    rate: Curve = ()
    sent: Curve = ()
    settings: Sequence[tuple[str, str]] = ()
    method: str = ""
    difference: str = ""
    difference_cut: bool = False
    changed: Sequence[tuple[str, str]] = ()
    contamination: str = ""
    findings: Sequence[Finding] = ()
    replay: Sequence[tuple[str, str]] = ()

    @property
    def board(self) -> tuple[str, str, str, str]:
        """The table it stands in: challenge, rules, their version, division."""
        return self.challenge, self.rules, self.rules_version, self.division

    @property
    def declared_hours(self) -> bool:
        """Whether the participant says other hours than the run noted."""
        return self.hours is not None and self.hours != self.run_hours

    @property
    def warnings(self) -> list[str]:
        """The names of the checks that found what a person should look at, each once."""
        found = (one.check for one in self.findings if one.level == "warning")
        return list(dict.fromkeys(found))

    @property
    def points(self) -> Decimal:
        """Its average as a number."""
        return Decimal(self.average)


@dataclass(frozen=True)
class Refused:
    """A bundle that is INVALID: listed apart, never ranked.

    Attributes
    ----------
    bundle
        Its file's name.
    digest
        sha256 over its files; None where it could not be opened.
    team, challenge
        As far as the checks could read them; empty otherwise.
    """

    bundle: str
    digest: str | None
    team: str = ""
    challenge: str = ""
    findings: Sequence[Finding] = field(default_factory=tuple)
