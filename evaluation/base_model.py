"""Which base model is scored, and whether it is the one that the checkpoint was trained on."""

from dataclasses import dataclass
from pathlib import Path

from evaluation.checkpoint import Checkpoint
from flowertune.base.errors import UserError
from flowertune.models import smollm2
from flowertune.models.resolve import folder_of


@dataclass(frozen=True)
class BaseModel:
    """A base model.

    Attributes:
        name: hub id, folder or built-in name.
        revision: on the hub, None for its default branch.
        given_by: "--model" or "checkpoint".
        difference: what to say where it is not the checkpoint's, else None.
    """

    name: str
    revision: str | None
    given_by: str
    difference: str | None = None


def choose(model: str | None, checkpoint: Checkpoint | None) -> BaseModel:
    """Return the base model: `model` of the command line, else the one the checkpoint names.

    Raises:
        UserError: there is neither, or the checkpoint names a folder that must not be read.
    """
    if checkpoint is None:
        return BaseModel(model or "", None, "--model")
    own = _own(checkpoint) if model is None else _named(checkpoint)
    if model is None:
        return BaseModel(own, checkpoint.revision, "checkpoint")
    if _same(model, own) or _same(model, checkpoint.base):
        return BaseModel(model, checkpoint.revision, "--model")
    difference = f"scored on the base model {model}, and it was trained on {own}"
    return BaseModel(model, None, "--model", difference)


def _named(checkpoint: Checkpoint) -> str:
    return smollm2.NAME if checkpoint.base_name == smollm2.NAME else checkpoint.base


def _own(checkpoint: Checkpoint) -> str:
    name = _named(checkpoint)
    if name == smollm2.NAME:
        return name
    cure = "say with --model where the base model is, as a folder or a hub id"
    if name.startswith((".", "~")):
        raise UserError(f"the checkpoint names its base model by the relative path {name}: {cure}")
    if not name.startswith("/"):
        # `from_pretrained` prefers a local folder of that name.
        if Path(name).exists():
            raise UserError(
                f"{name} in this folder would be read in place of the base model {name} of the "
                f"Hugging Face hub: run the command in another folder, or {cure}"
            )
        return name
    if Path(name).resolve().is_relative_to(checkpoint.path.resolve()):
        raise UserError(
            f"the checkpoint names a folder of its own as base model, {name}, and nothing but an "
            f"adapter is read of a checkpoint: {cure}"
        )
    return name


def _same(one: str, other: str) -> bool:
    # What a checkpoint names is never relative to where the command runs.
    given, known = folder_of(one), Path(other) if other.startswith("/") else None
    if given is None or known is None:
        return given is known and one == other
    return given.resolve() == known.resolve()
