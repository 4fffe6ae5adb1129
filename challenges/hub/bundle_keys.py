"""The keys that an organizer gives out for uploading bundles: only their hashes are kept."""

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from challenges.hub.repository import HubError
from flowertune.base.files import write_atomically

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_LINE = re.compile(r"([a-z0-9][a-z0-9-]{0,39}) ([0-9a-f]{64})")


class Keys:
    """A file with a line for each key: whose it is, and the sha256 of it.

    It is read again whenever a key is shown, so a line that is taken out locks its owner out.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, str]:
        """Return sha256 by name.

        Raises
        ------
        HubError
            There is no such file, or a line is none of a key.
        """
        try:
            lines = self._file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise HubError(f"{self._file} cannot be read (--bundle-keys): {error}.") from error
        found = {}
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise HubError(
                    f"line {number} of {self._file} is no key: `python -m challenges.hub key NAME` "
                    "writes one."
                )
            found[match[1]] = match[2]
        return found

    def owner(self, shown: str) -> str | None:
        """Return whose key was shown; None for nobody's."""
        digest = _digest(shown)
        owner = None
        for name, known in self.read().items():
            if hmac.compare_digest(digest, known):
                owner = name
        return owner

    def add(self, name: str) -> str:
        """Make a key for somebody, in the place of an earlier one; return it.

        Raises
        ------
        HubError
            The name is none, or the file cannot be read or written.
        """
        if not NAME.fullmatch(name):
            raise HubError(
                f"the name of a key is {name[:60]!r}; use 1 to 40 lower-case letters, digits "
                "and hyphens."
            )
        key = secrets.token_urlsafe(32)
        known = self.read() if self._file.exists() else {}
        known[name] = _digest(key)
        text = "".join(f"{owner} {digest}\n" for owner, digest in sorted(known.items()))
        try:
            write_atomically(self._file, text)
        except OSError as error:
            raise HubError(f"{self._file} cannot be written (--bundle-keys): {error}.") from error
        return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
