"""The same facts in other files: none of them says anything else than the run and the rows."""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile
from flowertune.rules.values import is_whole, shown
from submissions import layout
from submissions.findings import Kind
from submissions.verify import rebuilt
from submissions.verify.case import Case, differences
from submissions.verify.rebuilt import Origin

_YAML_BYTES = 32 * 2**10  # it is read slowly
_CARD_BYTES = 4 * 2**20
_MOST = 10**9
_FENCE = "---\n"
_OWNER = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
_NAMED = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
# What files that somebody else wrote may make the functions stumble over that write such files.
_UNFIT = (LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError)


def check(case: Case) -> None:
    """Make every file again that follows from others, and compare it with the bundle's."""
    _digests(case)
    told = (case.manifest, case.run, case.rounds, case.results, case.submission, case.app)
    if any(one is None for one in told):
        return  # structure says so
    origin = Origin(case.bundle.folder, *told)  # type: ignore[arg-type]
    _stated(case, origin)
    files: tuple[tuple[str, Kind, str, Callable[[], Any]], ...] = (
        (layout.ENVIRONMENT, "system", "environment", lambda: rebuilt.environment(origin)),
        (layout.FINGERPRINTS, "run", "fingerprints", lambda: rebuilt.fingerprints(origin)),
        (layout.CROISSANT, "structure", "croissant", lambda: _read(rebuilt.croissant(origin))),
        (
            layout.PROVENANCE, "structure", "provenance",
            lambda: _read(rebuilt.provenance(origin, case.bundle.sums)),
        ),
    )  # fmt: skip
    for name, kind, found, made in files:
        if name in case.bundle:
            _same(case, kind, found, name, lambda name=name: case.bundle.json(name), made)
    if case.facts.get("scores"):  # else there is nothing sure to compare with
        _hub_results(case, origin)
        _card(case, origin)
        _every_eval_ever(case, origin)


def _same(
    case: Case, kind: Kind, check: str, name: str, given: Callable[[], Any], made: Callable[[], Any]
) -> None:
    """Note where the content of a file is not what is made of the others."""
    try:
        body = given()
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    try:
        wanted = made()
    except _UNFIT as error:
        case.error(
            kind, check, name,
            f"The file cannot be made of run and score ({type(error).__name__}: "
            f"{one_line(error, 100)}): they lack what it says.",
        )  # fmt: skip
        return
    for path, one, other in differences(body, wanted):
        where = f"{name}: {path}" if path else name
        case.error(
            kind, check, where,
            f"The value is {shown(one)}, and run and score give {shown(other)}.",
        )  # fmt: skip


def _read(data: bytes) -> Any:
    return json.loads(data)


def _stated(case: Case, origin: Origin) -> None:
    """submission.json says of run and score what they are."""
    said, place = origin.submission, layout.SUBMISSION
    for path, wanted in rebuilt.stated(origin).items():
        above, _, key = path.rpartition(".")
        given = (said[above] if above else said)[key]
        case.differ(
            "rules", "submission", f"{place}: {path}", key, given, wanted, "run and score have"
        )
    size = case.bundle.sizes.get(layout.WEIGHTS)
    if size is not None and said["weights"]["bytes"] != size:
        case.error(
            "rules", "submission", f"{place}: weights",
            f"The weights are said to have {said['weights']['bytes']:,} bytes, and have {size:,}.",
        )  # fmt: skip
    if size is not None and said["weights"]["link"] is not None:
        case.error(
            "rules", "submission", f"{place}: weights",
            "The weights are said to be kept elsewhere, and are in the bundle.",
        )  # fmt: skip


def _digests(case: Case) -> None:
    """The subjects and byproducts of the provenance are the files of the bundle."""
    name = layout.PROVENANCE
    if name not in case.bundle:
        return
    try:
        body = case.bundle.json(name)
        about = body["predicate"]
        named = [*body["subject"], *about["runDetails"]["byproducts"]]
        digests = {one["name"]: one["digest"]["sha256"] for one in named}
    except UnusableFile:
        return  # read once more, and told then
    except (KeyError, TypeError):
        case.error("structure", "provenance", name, "The file is no in-toto statement of a run.")
        return
    sums: dict[str, Any] = dict(case.bundle.sums)
    if case.manifest is not None:
        sums.setdefault(layout.WEIGHTS, case.manifest["adapter-sha256"])
    for file, digest in sorted(digests.items(), key=lambda pair: str(pair[0])):
        if sums.get(file) != digest:
            case.error(
                "structure", "provenance", name,
                f"The sha256 of {shown(file)} is {shown(sums.get(file))}, and the statement says "
                f"{shown(digest)}.",
            )  # fmt: skip


def _hub_results(case: Case, origin: Origin) -> None:
    owner, names = "", case.bundle.below(layout.HUB_RESULTS)
    given: dict[str, Any] = {}
    for name in names:
        try:
            given[name] = _yaml(case.bundle.text(name, _YAML_BYTES))
        except UnusableFile as error:
            case.error("structure", "unreadable", name, f"The file {error}.")
            return
        owner = owner or _owner(given[name])
    try:
        wanted = rebuilt.hub_results(origin, owner)
    except _UNFIT as error:
        _wrong(case, layout.HUB_RESULTS, f"It cannot be made ({one_line(error, 100)}).")
        return
    for name in names:
        if name not in wanted:
            case.error(
                "structure", "unknown-file", name,
                f"The file is none of those that a bundle has: results for the hub are in "
                f"{', '.join(wanted)}.",
            )  # fmt: skip
            continue
        made = yaml.safe_load(wanted[name])
        _same(case, "score", "formats", name, lambda n=name: given[n], lambda m=made: m)


def _owner(entries: Any) -> str:
    """Return whose benchmark datasets results name: that alone is the participant's to say."""
    try:
        owner = entries[0]["dataset"]["id"].partition("/")[0]
    except (LookupError, TypeError, AttributeError):
        return ""
    return owner if _OWNER.fullmatch(owner) else ""


def _card(case: Case, origin: Origin) -> None:
    """The card says what run and score do; its section on the method is the participant's own."""
    name = layout.CARD
    if name not in case.bundle:
        return
    try:
        text = case.bundle.text(name, _CARD_BYTES)
        head, given = _parts(text)
        if given is None:
            raise UnusableFile("is no model card: it has no metadata")
        if len(head) > _YAML_BYTES:
            raise UnusableFile(f"has metadata of more than {_YAML_BYTES:,} characters")
        metadata = _yaml(head)
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    try:
        own, made = _parts(rebuilt.card(origin).decode("utf-8"))
        assert made is not None
        before, _, after = made.partition(rebuilt.METHOD)
    except _UNFIT as error:
        _wrong(case, name, f"It cannot be made of run and score ({one_line(error, 100)}).")
        return
    wanted = yaml.safe_load(own)
    _same(case, "score", "formats", name, lambda: metadata, lambda: wanted)
    room = len(given) - len(before) - len(after)
    if room < 0 or not given.startswith(before) or not given.endswith(after):
        line = _first_other(given, before, after)
        _wrong(
            case, name,
            f"The card says {shown(line)} where run and score say something else: only the section "
            "on the method is free.",
        )  # fmt: skip


def _first_other(given: str, before: str, after: str) -> str:
    lines, first, last = given.splitlines(), before.splitlines(), after.splitlines()
    pairs = [*zip(lines, first, strict=False), *zip(lines[::-1], last[::-1], strict=False)]
    return next((one for one, other in pairs if one != other), "less")


def _parts(card: str) -> tuple[str, str | None]:
    """Return the metadata of a card, and its text; None where it has no metadata."""
    if not card.startswith(_FENCE):
        return "", None
    head, fence, text = card.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    return head, text if fence else None


def _every_eval_ever(case: Case, origin: Origin) -> None:
    place, names = layout.EVERY_EVAL_EVER, case.bundle.below(layout.EVERY_EVAL_EVER)
    records = [name for name in names if name.endswith(".json")]
    if len(records) != 1 or len(names) != 2:
        _wrong(case, place, f"There are {len(names)} files, and a record is two.")
        return
    (name,) = records
    try:
        body = case.bundle.json(name)
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
        return
    model = body.get("model_info")
    named = model.get("id") if isinstance(model, dict) else None
    if not isinstance(named, str) or _NAMED.fullmatch(named) is None:
        _wrong(case, name, f"The model's id is {shown(named)}, which has to be OWNER/NAME.")
        return
    try:
        wanted = rebuilt.every_eval_ever(origin, named)
    except _UNFIT as error:
        _wrong(case, name, f"It cannot be made of run and score ({one_line(error, 100)}).")
        return
    if name not in wanted:
        _wrong(case, name, f"The record of {named} lies in {shown(next(iter(wanted)))}, not here.")
        return
    _same(case, "score", "formats", name, lambda: body, lambda: _read(wanted[name]))
    for file, content in wanted.items():
        if file != name and case.bundle.sums.get(file) != hashlib.sha256(content).hexdigest():
            _wrong(case, file, f"Its rows are not those of {layout.ROWS}.")


def _wrong(case: Case, place: str, sentence: str) -> None:
    case.error("score", "formats", place, sentence)


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
        body = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, UnusableFile):
            raise
        raise UnusableFile(f"is no YAML ({one_line(error, 100)})") from None
    _plain(body)
    return body


def _plain(body: Any) -> None:
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise UnusableFile("has a key that is no text")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif not isinstance(value, str | float | bool | None) and not is_whole(
            value, -_MOST, _MOST
        ):
            raise UnusableFile("has a value that is no text and no number of a usual size")
