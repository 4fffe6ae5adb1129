"""flowertune.deploy.config_file: what an edit of Flower's config.toml changes and keeps."""

import tomllib

import pytest

from flowertune.base.errors import UserError
from flowertune.deploy.config_file import client_resources, connection_values, edit, remove

VALUES = connection_values(50, 6, 1.0)

FORMS = {
    "empty": "",
    "comment only": "# nothing here",
    "flower's own": '[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = ":local:"\n',
    "hand-written, as the challenge's instructions have it": (
        '[superlink]\ndefault = "local"\n\n[superlink.flowertune]\noptions.num-supernodes = 50\n'
        "options.backend.client-resources.num-cpus = 6\n"
        "options.backend.client-resources.num-gpus = 1.0\n"
    ),
    "tables": '[superlink.flowertune]\naddress = "x"\n[superlink.flowertune.options]\n'
    'num-supernodes = 3 # few\n[superlink.b]\naddress = "y"\n',
    "deep table only": "[superlink.flowertune.options.backend.client-resources]\nnum-gpus = 0.5\n",
    "inline connection": "[superlink]\nflowertune = "
    '{address = "x", options = {num-supernodes = 3}}\n',
    "inline superlink": 'superlink = {default = "a", a = {address = "x"}}\n',
    "dotted connection": '[superlink]\nflowertune.address = "x"\n[superlink.k]\naddress = "u"\n',
    "tables out of order": '[superlink.local]\naddress = "y"\n[b]\ny = 2\n'
    '[superlink.x]\naddress = "z"\n',
    "other settings of the connection": '[superlink.flowertune]\nfederation = "@me/mine"\n'
    "options.verbose = true\noptions.backend.init-args.num-cpus = 2\n",
}


def with_values(text, make_default):
    document = tomllib.loads(text)
    superlink = document.setdefault("superlink", {})
    if make_default:
        superlink["default"] = "flowertune"
    for key, value in VALUES.items():
        table = superlink.setdefault("flowertune", {})
        *parents, last = key.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    return document


@pytest.mark.parametrize("make_default", [True, False])
@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_only_the_wanted_values_change_and_a_second_edit_changes_nothing(text, make_default):
    edited = edit(text, VALUES, make_default)
    assert tomllib.loads(edited) == with_values(text, make_default)
    assert edit(edited, VALUES, make_default) == edited


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_was_added_is_removed_and_nothing_else(text, end):
    text = text.replace("\n", end)
    added = edit(text, VALUES, make_default=False, connection="guest")
    left = remove(added, "guest")
    assert tomllib.loads(left) == tomllib.loads(text)


def test_comments_order_and_spelling_stay():
    text = (
        "# mine\n"
        'top = 1   # aligned\n[superlink]\ndefault = "z" # was z\n'
        "# about flowertune\n"
        "[superlink.flowertune] # here\n"
        "options.num-supernodes = 10 # ten\n"
        "options.backend.client-resources.num-cpus = 6.0   # six\n\n"
        "# about z\n"
        "[superlink.z]\n"
        "address='127.0.0.1:9'\n"
    )
    edited = edit(text, VALUES, make_default=True)
    kept = [line for line in text.splitlines() if "10 # ten" not in line and "was z" not in line]
    positions = [edited.splitlines().index(line) for line in kept if line]
    assert positions == sorted(positions)
    assert "options.num-supernodes = 50 # ten\n" in edited
    assert 'default = "flowertune" # was z\n' in edited


def test_windows_line_ends_stay():
    edited = edit('[superlink]\r\ndefault = "local"\r\n', VALUES, make_default=True)
    assert "\n" not in edited.replace("\r\n", "")


def test_keep_default_leaves_the_default_alone():
    text = FORMS["flower's own"]
    assert 'default = "local"' in edit(text, VALUES, make_default=False)


@pytest.mark.parametrize(
    "text", ["[superlink", "a = 1\na = 2\n", "superlink = 3\n", "[superlink]\nflowertune = 3\n"]
)
def test_a_file_that_cannot_be_edited_is_refused(text):
    with pytest.raises(UserError):
        edit(text, VALUES, make_default=True)


def test_a_form_that_cannot_be_edited_names_the_lines_to_write():
    with pytest.raises(UserError, match=r"superlink\.flowertune\.options\.num-supernodes = 50"):
        edit("superlink.default = 'a'\nsuperlink.a.address = 'x'\n", VALUES, make_default=True)


def test_resources_are_read_from_any_form():
    assert client_resources(edit("", connection_values(2, 3, 0.5), True)) == (3, 0.5)
    assert client_resources(FORMS["deep table only"]) == (None, 0.5)
    assert client_resources("[superlink]\nflowertune = 3\n") == (None, None)


def test_whole_cores_are_written_as_whole_numbers():
    values = connection_values(50, 6.0, 1)
    assert repr(values["options.backend.client-resources.num-cpus"]) == "6"
    assert repr(values["options.backend.client-resources.num-gpus"]) == "1.0"
