"""Say in one sentence why something cannot be had from the Hugging Face hub."""

from functools import cache

from flowertune.base.errors import UserError
from flowertune.base.text import one_line

_PROBE_SECONDS = 5.0
NO_ANSWER = "the hub cannot be reached from here"
NO_HUB_ID = "this is no hub id (they look like owner/name)"


@cache
def reachable() -> bool:
    """Whether the hub answers, asked once; without this, each file costs 20 s of retries."""
    # Late: huggingface_hub takes a part of a second to import, and most messages need no hub.
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    except Exception:  # any failure of the HTTP library means the same to us
        return False
    return True


def why_not(error: Exception) -> str:
    """The reason behind an error of huggingface_hub, datasets or transformers, as a clause."""
    names = {kind.__name__ for cause in chain(error) for kind in type(cause).__mro__}
    text = one_line(error)
    if "GatedRepoError" in names or "gated dataset" in text:
        return "it is gated: ask for access on its page, then run `hf auth login`"
    if "RevisionNotFoundError" in names:
        return "it has no such revision"
    # a missing entry of the cache is also an EntryNotFoundError, so it comes first
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError"}:
        return NO_ANSWER
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return "it does not exist, or is private and needs `hf auth login`"
    return text


def is_hub_id(name: str) -> bool:
    """Whether the hub could have something of this name."""
    # Late, as above.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def refusal(setting: str, name: str, revision: str, reason: str, offline: str) -> UserError:
    """The error for a hub id that cannot be had; ``offline`` says what works without the hub."""
    at = "" if revision == "main" else f" at revision {revision!r}"
    return UserError(f"{setting} is {name!r}{at}, and {reason}; without the hub, {offline}.")


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from, newest first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
