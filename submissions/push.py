"""Upload an adapter, its card and its results to the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowertune.base import hub
from flowertune.base.errors import UserError
from submissions import layout
from submissions.bundle.packing import Content

MESSAGE = "Adapter, model card and results of a FlowerTune submission"


def files_of(files: Mapping[str, Content]) -> dict[str, Content]:
    """Return what of a bundle goes to the hub, by its path in the repository.

    The adapter and its card lie at the top, where PEFT and the hub look for them.
    """
    found: dict[str, Content] = {}
    for name, content in files.items():
        if name.startswith(f"{layout.ADAPTER}/"):
            found[name.removeprefix(f"{layout.ADAPTER}/")] = content
        elif name.startswith(f"{layout.HUB_RESULTS}/") or name == layout.PROVENANCE:
            found[name] = content
    return found


def checked_id(given: str) -> str:
    """Return an id of the hub with an owner.

    Raises
    ------
    UserError
        It is none.
    """
    if not hub.is_hub_id(given) or given.count("/") != 1:
        raise UserError(f"--push is {given!r}, and a repository of the hub is called OWNER/NAME.")
    return given


def push(files: Mapping[str, Content], hub_id: str, private: bool = False) -> str:
    """Make a repository where there is none, and put the files there in one commit.

    Parameters
    ----------
    files
        As ``files_of`` gives them.
    hub_id
        OWNER/NAME. The hub is that of HF_ENDPOINT, the account that of `hf auth login`.
    private
        Whether a new repository is one that only its owner sees.

    Returns
    -------
    str
        The commit's address.

    Raises
    ------
    UserError
        The hub did not take it; says why.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    operations: list[Any] = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in sorted(files.items())
    ]
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        commit = api.create_commit(hub_id, operations, commit_message=MESSAGE)
    except Exception as error:  # of HTTP, of the hub, of a token that is missing
        raise UserError(f"{hub_id} was not uploaded: {_why(error)}.") from None
    return str(commit.commit_url)


def _why(error: Exception) -> str:
    names = {kind.__name__ for cause in hub.chain(error) for kind in type(cause).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "LocalTokenNotFoundError" in names or status == 401:
        return "the hub asks who you are; run `hf auth login`"
    if status == 403:
        return "your account may not write there; name a repository of your own"
    return hub.why_not(error).rstrip(".")


def read_method(path: Path) -> str:
    """Return the text for the card's section on the method.

    Raises
    ------
    UserError
        It cannot be read, or is no text.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"--method {path} cannot be read: {reason}.") from None
    if not text.strip():
        raise UserError(f"--method {path} is empty: write what you changed, and why.")
    return text
