"""What is made from the table of settings is what lies in the repository."""

import subprocess
import sys

import pytest

import challenges
from flowertune.config.reference import FACTS, pyproject_tables, reference_page
from flowertune.config.settings import defaults, table
from tests.apps import ROOT, default_settings


def test_what_is_written_from_the_source_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "scripts/generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_setting_has_its_line_and_a_word_of_help():
    tables, page = pyproject_tables(), reference_page()
    for entry in table():
        short = entry.key.removeprefix("static.")
        assert f"\n{short} = " in tables
        assert f"| `{entry.key}` |" in page
        cell = entry.rule.allowed.replace("|", "\\|")
        assert cell in page
        assert entry.key.startswith("static.") or entry.help or entry.why, entry.key


def test_only_facts_of_a_challenge_have_no_default():
    assert {key for key, value in defaults().items() if value is None} == set(FACTS)


@pytest.mark.parametrize("challenge", challenges.names())
def test_a_rendered_app_has_the_tables_defaults(challenge: str):
    rendered = default_settings(challenge)
    wanted = {key: value for key, value in defaults().items() if value is not None}
    assert {key: rendered[key] for key in wanted} == wanted
    assert set(rendered) == set(defaults())
