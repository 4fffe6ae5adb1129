"""The bands of a rules version: one for each challenge and base model; where they are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from challenges import record
from flowertune.base.errors import UserError
from flowertune.base.untrusted import UnusableFile, read_strict_json
from flowertune.rules.manifest import list_of, object_with
from flowertune.rules.values import TEXT, Value, is_number, shown, whole
from submissions.convergence import bands
from submissions.convergence.bands import Comparison, Stretch

FORMAT = 1
_MOST = 16 * 2**20  # bytes of a file
_NUMBER = Value("a number", is_number)
_STRETCH = object_with(
    first=whole(1), last=whole(1), mean=_NUMBER, deviation=_NUMBER, limit=_NUMBER
)
_BAND = object_with(runs=whole(bands.FEWEST), rounds=whole(1), stretches=list_of(_STRETCH))
_FILE = {"format": whole(FORMAT, FORMAT), "rules": TEXT, "rules-version": TEXT}


@dataclass
class Reference:
    """Reference runs under a version of the rules.

    Attributes:
        rules: name of the rule set.
        version: of it.
        found: challenge -> base model -> runs, rounds, stretches, curves, settings.
    """

    rules: str
    version: str
    found: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def add(
        self,
        challenge: str,
        model: str,
        curves: Sequence[Sequence[float | None]],
        settings: Mapping[str, Any],
    ) -> None:
        """Add the runs of one challenge and base model.

        Raises:
            ValueError: no band can be made of them.
        """
        band = bands.band_of(curves)
        self.found.setdefault(challenge, {})[model] = {
            "runs": len(curves),
            "rounds": len(curves[0]),
            "stretches": [asdict(stretch) for stretch in band],
            "curves": [list(curve) for curve in curves],
            "settings": dict(settings),
        }

    def check(
        self,
        challenge: str,
        rules: str,
        version: str,
        model: str,
        lines: Sequence[Mapping[str, Any]],
    ) -> Comparison:
        """Hold a run against the band of its challenge, rules and base model.

        Args:
            challenge: that it was for.
            rules: name of its rules.
            version: of its rules.
            model: name of its base model, as its settings have it.
            lines: of its rounds.jsonl, those of all rounds.
        """
        band = self.found.get(challenge, {}).get(model)
        if band is None or (rules, version) != (self.rules, self.version):
            return Comparison(
                "none",
                f"No reference runs are known of {challenge} with {shown(model)} under the rules "
                f"{rules} {version}.",
            )
        made = [Stretch(**{key: one[key] for key in _KEYS}) for one in band["stretches"]]
        return bands.compare(bands.losses(lines), made, band["runs"])

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        head = {"format": FORMAT, "rules": self.rules, "rules-version": self.version}
        return {**head, "challenges": self.found}


_KEYS = ("first", "last", "mean", "deviation", "limit")


def published(rules: str, version: str) -> Reference | None:
    """Return the reference runs that are published for a version of the rules, if there are any."""
    body = record.convergence(rules, version)
    return _of(body, f"the record of {rules} {version}") if body else None


def read_reference(path: Path) -> Reference:
    """Return the reference runs in a file.

    Raises:
        UserError: it is not there, or no such file.
    """
    try:
        body = read_strict_json(path, _MOST)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: give one that {_MAKER} wrote") from None
    except (OSError, UnusableFile) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path} cannot be used ({said}): give one that {_MAKER} wrote") from None
    return _of(body, str(path))


_MAKER = "`python -m evaluation.reference RUNS… -o FILE`"


def _of(body: Mapping[str, Any], named: str) -> Reference:
    of_challenges = object_with(of=object_with(of=_BAND))
    for key, value in {**_FILE, "challenges": of_challenges}.items():
        if not value.fits(body.get(key)):
            raise UserError(
                f"{named} has {key} {shown(body.get(key))}, which has to be {value.allowed}: give "
                f"one that {_MAKER} wrote"
            )
    return Reference(body["rules"], body["rules-version"], dict(body["challenges"]))
