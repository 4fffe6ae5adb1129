"""The template's address, and the credentials in it, which never leave this process and its git.

git gets them in its environment, which only the same user can read, and asks for them only where
the server does; its command line, its errors and the clone's own configuration know the address
without them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_WITH_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/]*)@(.*)", re.DOTALL)
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" '
    '"$FLOWERTUNE_HUB_GIT_USER" "$FLOWERTUNE_HUB_GIT_PASSWORD"; }; f'
)


@dataclass(frozen=True)
class Address:
    """A repository's address without credentials, and what they are."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Take an address apart.

        >>> Address.parse("https://user:token@example.org/template.git")
        Address(url='https://example.org/template.git')
        >>> Address.parse("ssh://git:password@example.org/template.git")
        Address(url='ssh://git@example.org/template.git')
        >>> Address.parse("git@example.org:template.git").url
        'git@example.org:template.git'
        """
        match = _WITH_USER.fullmatch(text)
        if not match:
            return cls(text)
        scheme, user_info, rest = match.groups()
        user, _, password = user_info.partition(":")
        if scheme in ("ssh://", "git+ssh://"):
            return cls(f"{scheme}{user}@{rest}")  # ssh needs its user, and takes no password here
        return cls(scheme + rest, unquote(user), unquote(password))

    @property
    def for_copier(self) -> str:
        """The address in the form in which Copier knows it for a git repository's.

        >>> Address("https://example.org/template").for_copier
        'git+https://example.org/template'
        >>> Address("https://example.org/template.git").for_copier
        'https://example.org/template.git'
        """
        known = (
            self.url.endswith(".git")
            or "://" not in self.url
            or self.url.startswith(("git://", "git+", "https://github.com/", "https://gitlab.com/"))
        )
        return self.url if known else f"git+{self.url}"

    @property
    def for_git(self) -> str:
        """The address as git takes it."""
        return self.url.removeprefix("git+")

    def environment(self) -> dict[str, str]:
        """What git needs in its environment to log in; empty where there is nothing to log in with.

        Helpers of the user's own git configuration are left out: one might write down what it sees.
        """
        if not self.user:
            return {}
        parts = urlsplit(self.for_git)
        settings = [
            ("credential.helper", ""),
            (f"credential.{parts.scheme}://{parts.netloc}.helper", _HELPER),
        ]
        return {
            **git_settings(settings, os.environ),
            "FLOWERTUNE_HUB_GIT_USER": self.user,
            "FLOWERTUNE_HUB_GIT_PASSWORD": self.password,
        }


def git_settings(settings: list[tuple[str, str]], environment: Mapping[str, str]) -> dict[str, str]:
    """Settings for git as variables of its environment, after those that are there already."""
    start = int(environment.get("GIT_CONFIG_COUNT") or 0)
    made = {"GIT_CONFIG_COUNT": str(start + len(settings))}
    for number, (key, value) in enumerate(settings, start):
        made |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return made
