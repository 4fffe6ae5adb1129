"""A base model as somebody named it, and the sentence for one that cannot be used."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.base.text import one_line

_LONG = 200  # characters
_TO_INSTALL = re.compile(r"pip install [`'\"]?([A-Za-z][\w.-]*)(?![\w.+-])")


@dataclass(frozen=True)
class Source:
    """A base model: where it is, and how whoever named it can change that.

    Attributes
    ----------
    path
        What ``from_pretrained`` takes: a folder, or a hub id.
    revision
        Of the hub.
    trust_remote_code
        Whether its own code may run.
    named
        How a sentence about it begins: "model.name is './model'".
    cure
        How that sentence ends: "name another model".
    bits
        What says to how many bits it is quantized: "model.quantization".
    """

    path: str
    revision: str = "main"
    trust_remote_code: bool = False
    named: str = "the base model"
    cure: str = "name another model"
    bits: str = "model.quantization"

    @property
    def folder(self) -> Path | None:
        """The folder that it is in; None for a hub id."""
        path = Path(self.path)
        return path if path.is_dir() else None

    @property
    def arguments(self) -> dict[str, Any]:
        """What every ``from_pretrained`` is given beside the path."""
        return {
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
            # Without an answer from the hub, each file costs 20 s of retries.
            "local_files_only": self.folder is not None or not hub.reachable(),
        }

    @property
    def file_arguments(self) -> dict[str, Any]:
        """What is given beside the path to read one file, from which no code runs."""
        return {k: v for k, v in self.arguments.items() if k != "trust_remote_code"}

    def holds(self, name: str) -> bool:
        """Whether the model has a file of this name; fetches it from the hub if need be."""
        # Late: transformers takes seconds to import.
        from transformers.utils.hub import cached_file

        optional = {"_raise_exceptions_for_missing_entries": False}
        return cached_file(self.path, name, **optional, **self.file_arguments) is not None

    def refusal(self, problem: str, cure: str | None = None) -> UserError:
        """Return the error for a model with a ``problem``, a clause that begins after "and"."""
        return UserError(f"{self.named}, and {problem}; {cure or self.cure}.")

    def unusable(self, what: str, error: Exception) -> UserError:
        """Return the error for a part of the model (``what``) that a library could not load."""
        if isinstance(error, UserError):
            return error
        if package := missing_package(error):
            return self.refusal(
                f"{what} needs the package {package}, which is not installed",
                f"run `pip install {package}`, or {self.cure}",
            )
        if "contains custom code" in str(error):
            return self.refusal(
                f"{what} needs code that comes with it",
                f"allow it with trust-remote-code if you trust its authors, or {self.cure}",
            )
        reason = _shortened(str(error)) if self.folder else hub.why_not(error)
        if type(error).__module__ == "builtins" and not isinstance(error, OSError | ValueError):
            # "'model_type'" or "unhashable type: 'list'" is no sentence without its kind.
            reason = f"{type(error).__name__}: {reason}"
        return self.refusal(f"{what} cannot be loaded ({reason.rstrip('.')})")


def _shortened(text: str) -> str:
    # Of a long explanation, its first sentence; libraries go on with advice for their own callers.
    whole = one_line(text, 10_000)
    first = whole.partition(". ")[0] if len(whole) > _LONG else whole
    return one_line(first, _LONG)


def missing_package(error: Exception) -> str | None:
    """Return the package that an error says is not installed; None where it says no such thing."""
    for cause in hub.chain(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name.partition(".")[0]
        asked = _TO_INSTALL.search(str(cause))
        if isinstance(cause, ImportError | ValueError) and asked:
            return asked[1].rstrip(".")
    return None
