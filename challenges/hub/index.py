"""Which apps a release holds: app id -> what Copier is to be answered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from challenges.hub.repository import HubError, Release, TemplateRepository

ACCOUNT = "flowertune"
OFFICIAL_ACCOUNT = "flwrlabs"


@dataclass(frozen=True)
class App:
    """One app of a release. `answers` are Copier's; `listed` apps are those `flwr new` offers."""

    app_id: str
    challenge: str
    rules: str
    listed: bool

    @property
    def account(self) -> str:
        """The part of the app id between @ and the slash."""
        return self.app_id[1:].split("/")[0]

    @property
    def name(self) -> str:
        """The part of the app id after the slash; the folder that `flwr new` makes."""
        return self.app_id.split("/")[1]

    @property
    def answers(self) -> dict[str, str]:
        """What `copier copy --data` would be given."""
        return {"challenge": self.challenge, "rules": self.rules}


@dataclass(frozen=True)
class Index:
    """What one release holds.

    Attributes
    ----------
    facts : Mapping[str, Any]
        Challenge -> content of its YAML file, in the order of the template's question.
    rule_sets : Mapping[str, Any]
        Content of rules.yml.
    apps : Mapping[str, App]
        App id -> app.
    """

    facts: Mapping[str, Any]
    rule_sets: Mapping[str, Any]
    apps: Mapping[str, App]


def read_index(repository: TemplateRepository, release: Release) -> Index:
    """Read a release's challenges and rules out of git.

    Raises
    ------
    HubError
        If a file of it is missing or does not hold what it should; the sentence is one that
        anybody may read.
    """
    questions = _mapping(repository, release, "copier.yml")
    try:
        names = [str(name) for name in questions["challenge"]["choices"]]
        default_rules = str(questions["rules"]["default"])
    except (KeyError, TypeError) as error:
        raise HubError("its copier.yml has no choices of challenge, or no default rules") from error
    facts = {name: _mapping(repository, release, f"challenges/{name}.yml") for name in names}
    rule_sets = _mapping(repository, release, "challenges/rules.yml")
    return Index(facts, rule_sets, list_apps(facts, list(rule_sets), default_rules))


def _mapping(repository: TemplateRepository, release: Release, path: str) -> Mapping[str, Any]:
    try:
        read = yaml.safe_load(repository.read(release, path))
    except HubError as error:
        raise HubError(f"its {path} cannot be read") from error
    except yaml.YAMLError as error:
        raise HubError(f"its {path} is not valid YAML") from error
    if not isinstance(read, Mapping):
        raise HubError(f"its {path} is not a mapping")
    return read


def list_apps(facts: Mapping[str, Any], rule_sets: list[str], default_rules: str) -> dict[str, App]:
    """App id -> app: every challenge by its own name, by its official one, and under other rules.

    Raises HubError if two have one name.

    >>> list(list_apps({"law": {"official": "flowertune-llm-law"}}, ["a", "b.c"], "a"))
    ['@flowertune/law', '@flwrlabs/flowertune-llm-law', '@flowertune/law-b-c']
    """
    apps = []
    for name, fact in facts.items():
        apps.append(App(f"@{ACCOUNT}/{name}", name, default_rules, listed=True))
        if fact.get("official"):
            official = f"@{OFFICIAL_ACCOUNT}/{fact['official']}"
            apps.append(App(official, name, default_rules, listed=False))
        for rules in rule_sets:
            if rules != default_rules:
                slug = re.sub(r"[^A-Za-z0-9]+", "-", rules)
                apps.append(App(f"@{ACCOUNT}/{name}-{slug}", name, rules, listed=False))
    by_id = {app.app_id: app for app in apps}
    if len(by_id) < len(apps):
        twice = next(app.app_id for app in apps if by_id[app.app_id] != app)
        raise HubError(f"two of its challenges have the name {twice}")
    return by_id
