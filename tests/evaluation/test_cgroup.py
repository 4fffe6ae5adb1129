"""evaluation.sandbox.cgroup: where a control group is made, what is written, and what is left.

On a copy of the tree in a folder: few machines let tests make control groups. (The code was also
run on a Linux 6.1 with version 2 alone: as root and as the user of a delegated group without
systemd, and as root with systemd 252.)
"""

import subprocess
from pathlib import Path

import pytest

from evaluation.sandbox import cgroup


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "cgroup"
    own = tree / "user" / "session"
    own.mkdir(parents=True)
    (tree / "cgroup.subtree_control").write_text("memory pids\n")
    (tree / "user" / "cgroup.subtree_control").write_text("cpu memory\n")
    (own / "cgroup.subtree_control").write_text("\n")
    (tmp_path / "own").write_text("1:name=systemd:/\n0::/user/session\n")
    return tree


@pytest.fixture
def removed(monkeypatch):
    """Folders of a real tree can be removed as they are; a copy's files have to go first."""
    seen = {}

    def remove(folder):
        seen[folder.name] = {path.name: path.read_text().strip() for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    monkeypatch.setattr(cgroup, "_remove", remove)
    return seen


def test_a_group_is_made_beside_ones_own(tree, removed):
    found = cgroup._own_groups(tree, tree.parent / "own")
    assert found == cgroup.Group(folder=tree / "user")
    (files,) = removed.values()
    # the trial wrote its limit and joined
    assert files["memory.max"] == str(cgroup.ROOM) and files["cgroup.procs"] == "0"
    assert files["memory.swap.max"] == "0"


def test_no_group_where_memory_is_not_shared_out(tree, removed):
    (tree / "user" / "cgroup.subtree_control").write_text("cpu\n")
    assert cgroup._own_groups(tree, tree.parent / "own") is None
    assert cgroup._own_groups(tree, tree.parent / "nothing") is None
    (tree.parent / "own").write_text("4:memory:/\n")
    assert cgroup._own_groups(tree, tree.parent / "own") is None


def test_a_command_runs_in_a_group_that_is_gone_afterwards(tree, removed, monkeypatch):
    monkeypatch.setattr(cgroup, "find_groups", lambda: cgroup.Group(folder=tree / "user"))
    with cgroup.memory_cap(1000) as cap:
        folder = Path(cap.prefix[-1])
        done = subprocess.run([*cap.prefix, "echo", "hello"], capture_output=True, text=True)
        (folder / "memory.events").write_text("max 3\noom 1\noom_kill 1\n")
    assert done.stdout == "hello\n"
    assert cap.exceeded and not folder.exists()
    assert removed[folder.name]["memory.max"] == str(1000 + cgroup.ROOM)
    with cgroup.memory_cap(1000) as cap:
        pass
    assert not cap.exceeded


def test_systemd_is_asked_first(monkeypatch):
    theirs, own = cgroup.Group(command=("systemd-run",)), cgroup.Group(folder=Path("x"))
    monkeypatch.setattr(cgroup, "_groups_of_systemd", lambda tree: theirs)
    monkeypatch.setattr(cgroup, "_own_groups", lambda tree, membership: own)
    assert cgroup.find_groups.__wrapped__() is theirs
    monkeypatch.setattr(cgroup, "_groups_of_systemd", lambda tree: None)
    assert cgroup.find_groups.__wrapped__() is own


def test_without_control_groups_nothing_is_put_before_a_command(monkeypatch):
    monkeypatch.setattr(cgroup, "find_groups", lambda: None)
    with cgroup.memory_cap(1000) as cap:
        assert cap == cgroup.Cap()


def test_what_systemd_is_asked_for(monkeypatch):
    group = cgroup.Group(command=("systemd-run", "--user", "--scope"), env=(("A", "b"),))
    monkeypatch.setattr(cgroup, "find_groups", lambda: group)
    with cgroup.memory_cap(1000) as cap:
        assert cap.prefix[:3] == group.command and cap.prefix[-1] == "--"
        assert f"MemoryMax={1000 + cgroup.ROOM}" in cap.prefix and "MemorySwapMax=0" in cap.prefix
        assert cap.env == group.env
