"""The hub's parts on their own: releases, names, the cache, packing, uploads, the page."""

import asyncio
import html.parser
import io
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from copier._vcs import get_repo
from starlette.exceptions import HTTPException

from challenges.hub import __main__ as command
from challenges.hub import page, rendering, upload_store
from challenges.hub.address import Address
from challenges.hub.index import list_apps, read_index
from challenges.hub.limits import PUBLISH_PATH
from challenges.hub.render_cache import RenderCache
from challenges.hub.rendering import Order
from challenges.hub.repository import HubError, TemplateRepository, open_repository
from tests.apps import rendered
from tests.challenges.hub.fakes import Renders, client, client_of, small_template
from tests.templates import clone, commit, contents, git, render


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a repository with one release; tests must not change it."""
    return clone(tmp_path_factory.mktemp("repository") / "repository", "v1.0.0")


def order(name: str, kind: rendering.Kind = "zip", template: str = "t") -> Order:
    answers = (("challenge", "finance"), ("rules", "50-supernodes"))
    source = "https://example.org/t.git"
    return Order(template, "v1.0.0", "v1.0.0", answers, name, "flowertune", source, kind)


def test_releases_are_the_tags_that_are_versions(tmp_path: Path) -> None:
    repository = TemplateRepository(small_template(tmp_path), "unused")
    releases = repository.releases()
    assert [(release.version, release.tag) for release in releases] == [
        ("1.10.0", "1.10.0"),
        ("1.9.0", "v1.9.0"),
        ("1.0.0", "v1.0.0"),
    ]
    commits = [release.commit for release in releases]
    assert commits[1] == commits[2] == git(tmp_path, "rev-parse", "v1.0.0").strip()


def test_a_remote_template_is_cloned_and_fetched(tmp_path: Path) -> None:
    remote = small_template(tmp_path / "remote")
    (tmp_path / "scratch").mkdir()
    repository = open_repository(Address(remote.as_uri()), tmp_path / "scratch")
    assert repository.source == f"git+{remote.as_uri()}"
    assert repository.releases()[0].version == "1.10.0"
    git(remote, "tag", "v3.0.0")
    asyncio.run(repository.fetch())
    assert repository.releases()[0].version == "3.0.0"
    remote.rename(tmp_path / "away")
    with pytest.raises(HubError, match="git fetch failed: fatal: "):
        asyncio.run(repository.fetch())
    assert repository.releases()[0].version == "3.0.0"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://example.org/t", "git+https://example.org/t"),
        ("https://example.org/t.git", "https://example.org/t.git"),
        ("https://github.com/a/t", "https://github.com/a/t"),
        ("git+https://example.org/t", "git+https://example.org/t"),
        ("git@example.org:t", "git@example.org:t"),
        ("gh:a/t", "gh:a/t"),
        ("/srv/t", "/srv/t"),
    ],
)
def test_addresses_are_ones_that_copier_takes(address: str, expected: str) -> None:
    assert Address.parse(address).for_copier == expected
    if not address.startswith("/"):
        assert get_repo(expected) is not None


def test_what_is_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"is no git repository \(--template\)"):
        open_repository(Address(str(tmp_path)), tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(HubError, match=r"has no commit to serve \(--template\)"):
        open_repository(Address(str(tmp_path)), tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_text("a")
    commit(tmp_path)
    with pytest.raises(HubError, match=r"is no template: it holds no copier.yml \(--template\)"):
        open_repository(Address(str(tmp_path)), tmp_path)
    with pytest.raises(HubError, match=r"sub is a folder of the git repository .*\(--template\)"):
        open_repository(Address(str(tmp_path / "sub")), tmp_path)
    with pytest.raises(HubError, match="git clone failed"):
        open_repository(Address((tmp_path / "nowhere").as_uri()), tmp_path)


@pytest.mark.parametrize("cloned", [False, True])
def test_a_template_without_a_release_is_served_as_it_is(tmp_path: Path, cloned: bool) -> None:
    folder = small_template(tmp_path / "template")
    for tag in git(folder, "tag").split():
        git(folder, "tag", "--delete", tag)
    (tmp_path / "scratch").mkdir()
    address = Address(folder.as_uri() if cloned else str(folder))
    template = open_repository(address, tmp_path / "scratch")
    (release,) = template.releases()
    assert (release.version, release.tag) == ("0.0.0", "")
    with (folder / "copier.yml").open("a") as file:
        file.write('template_version: {default: "1.2.3"}\n')
    commit(folder)
    asyncio.run(template.fetch())
    (release,) = template.releases()
    assert (release.version, release.tag) == ("1.2.3", "")
    assert release.commit == git(folder, "rev-parse", "HEAD").strip()
    served = client_of(folder)
    assert served.get("/health").json()["released"] is False
    assert "Nothing was released yet" in served.get("/").text
    git(folder, "tag", "v1.2.3")
    assert template.releases()[0].tag == ("" if cloned else "v1.2.3")


def test_every_challenge_of_this_repository_has_its_official_name(repository: Path) -> None:
    template = TemplateRepository(repository, "unused")
    index = read_index(template, template.releases()[0])
    for name in ("general-nlp", "finance", "medical", "code"):
        assert index.apps[f"@flwrlabs/flowertune-llm-{name}"].challenge == name
        assert index.apps[f"@flowertune/{name}-flower-ai"].rules == "flower.ai"
    listed = [app.app_id for app in index.apps.values() if app.listed]
    assert listed == [f"@flowertune/{name}" for name in index.facts]
    assert all(len(app.name) <= 32 for app in index.apps.values())


def test_names_follow_from_the_facts() -> None:
    apps = list_apps({"law": {"official": None}}, ["a", "b.c"], "a")
    assert {app_id: app.rules for app_id, app in apps.items()} == {
        "@flowertune/law": "a",
        "@flowertune/law-b-c": "b.c",
    }
    with pytest.raises(HubError, match="two of its challenges have the name @flwrlabs/x"):
        list_apps({"law": {"official": "x"}, "tax": {"official": "x"}}, ["a"], "a")


def test_the_render_cache_forgets_what_was_not_asked_for() -> None:
    async def use() -> list[str]:
        renders = Renders()
        with ThreadPoolExecutor(1) as executor:
            cache = RenderCache(renders, executor, max_bytes=100, seconds=5)
            for name in ("a", "b", "a", "c", "a", "b"):
                assert name.encode() in (await cache.get(order(name))).split(b"/")[1]
        return [made.name for made in renders.orders]

    # Two fit: c pushes b out, which was used longest ago, and then b pushes c out.
    assert asyncio.run(use()) == ["a", "b", "c", "b"]


def test_a_render_that_failed_is_tried_again() -> None:
    async def use() -> bytes:
        attempts = []

        def make(wanted: Order) -> bytes:
            attempts.append(wanted)
            if len(attempts) == 1:
                raise RuntimeError("once")
            return b"now"

        with ThreadPoolExecutor(1) as executor:
            cache = RenderCache(make, executor, max_bytes=100, seconds=5)
            with pytest.raises(RuntimeError, match="once"):
                await cache.get(order("a"))
            return await cache.get(order("a"))

    assert asyncio.run(use()) == b"now"


def test_a_zip_holds_what_copier_makes_of_the_public_address(
    repository: Path, tmp_path: Path
) -> None:
    packed = rendering.pack(order("my-finance", template=str(repository)))
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path / "out")
    made = contents(tmp_path / "out/my-finance")
    answers = {"challenge": "finance", "template_address": "https://example.org/t.git"}
    assert made == contents(render(tmp_path / "my-finance", repository, ref=None, **answers))
    assert yaml.safe_load(made[".copier-answers.yml"])["_src_path"] == "https://example.org/t.git"
    assert rendering.pack(order("my-finance", template=str(repository))) == packed


def test_a_bundle_names_itself_as_it_was_asked_for(repository: Path) -> None:
    packed = rendering.pack(order("finance-x", "fab", template=str(repository)))
    with zipfile.ZipFile(io.BytesIO(packed)) as bundle:
        config = tomllib.loads(bundle.read("pyproject.toml").decode())
    assert config["project"]["name"] == "finance-x"
    assert config["tool"]["flwr"]["app"]["publisher"] == "flowertune"


def test_an_app_names_the_templates_public_address_and_never_the_hubs_disk(
    repository: Path,
) -> None:
    source = "https://example.org/a: b.git"
    asked = replace(order("my-finance", template=str(repository)), source=source)
    with zipfile.ZipFile(io.BytesIO(rendering.pack(asked))) as archive:
        answers = yaml.safe_load(archive.read("my-finance/.copier-answers.yml"))
        project = tomllib.loads(archive.read("my-finance/pyproject.toml").decode())["project"]
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert answers["_src_path"] == source
    (library,) = [name for name in project["dependencies"] if name.startswith("flowertune")]
    assert library.startswith("flowertune @ git+https://example.org/a") and "@v1.0.0" in library
    assert str(repository).encode() not in everything


def upload(**changes: bytes) -> dict[str, bytes]:
    pyproject = b"""\
[project]
name = "my-app"
description = "An app"
[tool.flwr.app]
publisher = "me"
"""
    return {"pyproject.toml": pyproject, "pkg/a.py": b"x = 1\n", **changes}


def test_a_rendered_app_is_a_valid_upload() -> None:
    files = dict(contents(rendered("finance")))
    assert upload_store.check_upload(files) == ("flowertune", rendered("finance").name)


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (upload(**{"../x.py": b""}), "is no plain relative path"),
        (upload(**{"/etc/x.py": b""}), "is no plain relative path"),
        (upload(**{"a/../../x.py": b""}), "is no plain relative path"),
        (upload(**{"a//x.py": b""}), "is no plain relative path"),
        (upload(**{"./x.py": b""}), "is no plain relative path"),
        (upload(**{"a\\x.py": b""}), "is no plain relative path"),
        (upload(**{"a\0.py": b""}), "is no plain relative path"),
        (upload(**{"": b""}), "is no plain relative path"),
        (upload(**{"d/" * 11 + "x.py": b""}), "lies deeper than 10 folders"),
        (upload(**{"x.sh": b""}), "is of a type that is not taken"),
        (upload(**{"x.py": b"x" * (1024 * 1024 + 1)}), "has 1,048,577 bytes, over 1,048,576"),
        (upload(**{"x.py": b"\xff"}), "is not UTF-8"),
        (upload(**{f"{n}.py": b"x" * 1024 * 1024 for n in range(11)}), "over 10,485,760"),
        ({"a.py": b""}, "pyproject.toml has to name"),
        (upload(**{"pyproject.toml": b"["}), "pyproject.toml has to name"),
        (upload(**{"pyproject.toml": b"tool = 1\n[project]\nname = 1"}), "has to name"),
        (
            upload(**{"pyproject.toml": upload()["pyproject.toml"].replace(b"my-", b"../")}),
            "../app",
        ),
        (upload(**{"pyproject.toml": upload()["pyproject.toml"].replace(b'"me', b'"..')}), "'..'"),
        (
            upload(**{"pyproject.toml": upload()["pyproject.toml"].replace(b"An", b"A" * 200)}),
            "200",
        ),
    ],
)
def test_a_bad_upload_is_refused_in_a_sentence(files: dict[str, bytes], part: str) -> None:
    with pytest.raises(HTTPException) as refused:
        upload_store.check_upload(files)
    assert refused.value.status_code == 422
    assert part in refused.value.detail


def test_an_upload_is_kept_whole_and_only_with_the_token(tmp_path: Path) -> None:
    hub = client(
        tmp_path / "template", uploads=upload_store.UploadStore(tmp_path / "kept", "right")
    )
    files = [("files", (path, data)) for path, data in upload().items()]
    for shown in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer é"}):
        headers = {name.encode(): value.encode() for name, value in shown.items()}
        assert hub.post(PUBLISH_PATH, files=files, headers=headers).status_code == 401
    assert not (tmp_path / "kept").exists()
    right = {"authorization": "Bearer right"}
    twice = [hub.post(PUBLISH_PATH, files=files, headers=right) for _ in range(2)]
    assert [answer.status_code for answer in twice] == [201, 201]
    kept = sorted((tmp_path / "kept/me/my-app").iterdir())
    assert [contents(folder) for folder in kept] == [upload(), upload()]
    bad = [*files, ("files", ("../../x.py", b""))]
    assert hub.post(PUBLISH_PATH, files=bad, headers=right).status_code == 422
    assert hub.post(PUBLISH_PATH, files=[*files, files[1]], headers=right).status_code == 422
    assert sorted((tmp_path / "kept/me/my-app").iterdir()) == kept
    assert not list(tmp_path.rglob("x.py"))


class Reader(html.parser.HTMLParser):
    """Notes tags, ids, links and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("meta", "link"):
            self.open.append(tag)
        self.ids |= {found["id"] or ""} if "id" in found else set()
        self.links += [found["href"] or ""] if "href" in found else []
        assert tag != "script"
        assert not [name for name in found if name.startswith("on") or name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_there_is_without_scripts(tmp_path: Path) -> None:
    hub = client(tmp_path)
    answer = hub.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    reader = Reader()
    reader.feed(answer.text)
    assert reader.open == []
    assert {"#finance", "#law", "#rules"} <= set(reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= reader.ids
    for part in (
        "export FLWR_SUPERGRID_API_URL=http://hub.test/v1\nflwr new @flowertune/finance",
        "flwr new @flowertune/finance==1.10.0",
        "copier copy --data challenge=finance https://example.org/template.git my-app",
        "Law & <order>",
        "The <first> rules.",
        "Questions & answers.",
        "@flowertune/law-other-ai",
        "1.9.0, 1.0.0",
        f"Version 1.10.0 of the apps, commit {git(tmp_path, 'rev-parse', 'HEAD')[:12]}",
        "200,000 MiB",
    ):
        assert part in reader.text
    assert hub.get("/style.css").headers["content-type"].startswith("text/css")
    assert page.style() == hub.get("/style.css").text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--port", "0"], ["--port is 0; use 1 to 65535."]),
        (["--rate", "-1", "--workers", "0"], ["--rate is -1", "--workers is 0"]),
        (["--tls-cert", "x.pem"], ["go together", "--tls-cert is x.pem; there is no such file"]),
        (["--template", "https://a/b?token=secret"], ["--template has a ? or a #"]),
        (["--uploads", "in"], ["--uploads needs a token", "FLOWERTUNE_HUB_TOKEN"]),
    ],
)
def test_wrong_options_are_all_named(
    arguments: list[str],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(command.TOKEN_VARIABLE, raising=False)
    assert command.main(["serve", *arguments]) == 2
    printed = capsys.readouterr().err
    assert all(part in printed for part in parts)
    assert "secret" not in printed
