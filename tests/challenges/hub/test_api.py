"""What the hub answers, right and wrong questions alike."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flwr.supercore.utils import request_download_link

from challenges.hub import limits
from challenges.hub.rendering import Order
from tests.challenges.hub.fakes import Renders, client
from tests.templates import git

ZIP = "/v1/hub/fetch-zip"


def ask(app_id: object, version: object = None) -> dict[str, object]:
    return {"app_id": app_id, "app_version": version, "flwr_version": "1.41.0"}


def test_a_question_is_answered_with_an_address_that_works(tmp_path: Path) -> None:
    hub = client(tmp_path)
    answer = hub.post(ZIP, json=ask("@flowertune/finance"))
    assert answer.status_code == 200
    address = answer.json()["zip_url"]
    assert address == "http://hub.test/v1/hub/files/1.10.0/flowertune/finance.zip"
    file = hub.get(address)
    assert file.content == (b"zip 1.10.0 flowertune/finance https://example.org/template.git")
    assert file.headers["content-type"] == "application/zip"
    assert 'filename="finance-1.10.0.zip"' in file.headers["content-disposition"]


@pytest.mark.parametrize(
    ("app_id", "version", "expected"),
    [
        ("@flowertune/finance", "1.0.0", b"fab v1.0.0 flowertune/finance"),
        ("@flowertune/finance", "1.9.0", b"fab v1.9.0 flowertune/finance"),
        ("@flwrlabs/flowertune-llm-finance", None, b"fab 1.10.0 flwrlabs/flowertune-llm-finance"),
        ("@flowertune/law-other-ai", None, b"fab 1.10.0 flowertune/law-other-ai"),
    ],
)
def test_versions_and_names(
    app_id: str, version: str | None, expected: bytes, tmp_path: Path
) -> None:
    hub = client(tmp_path)
    answer = hub.post("/v1/hub/fetch-fab", json=ask(app_id, version))
    assert hub.get(answer.json()["fab_url"]).content.startswith(expected)


def test_other_rules_are_another_answer_to_copier(tmp_path: Path) -> None:
    renders = Renders()
    hub = client(tmp_path, renders)
    for app_id in ("@flowertune/law", "@flowertune/law-other-ai"):
        assert hub.post(ZIP, json=ask(app_id)).status_code == 200
    assert [dict(order.answers) for order in renders.orders] == [
        {"challenge": "law", "rules": "own"},
        {"challenge": "law", "rules": "other.ai"},
    ]


def test_an_app_is_rendered_once_however_many_ask(tmp_path: Path) -> None:
    renders = Renders(seconds=0.3)
    with client(tmp_path, renders) as hub, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(hub.post, ZIP, json=ask("@flowertune/finance")) for _ in range(20)]
        assert {answer.result().status_code for answer in asked} == {200}
    assert len(renders.orders) == 1


def test_a_slow_render_is_not_waited_for_but_kept(tmp_path: Path) -> None:
    renders = Renders(seconds=0.5)
    with client(tmp_path, renders, patience=0.1) as hub:
        late = hub.post(ZIP, json=ask("@flowertune/finance"))
        assert late.status_code == 503
        assert "not ready yet; try again" in late.json()["detail"]
        assert late.headers["retry-after"] == "10"
        for _ in range(20):
            if hub.post(ZIP, json=ask("@flowertune/finance")).status_code == 200:
                break
        assert hub.post(ZIP, json=ask("@flowertune/finance")).status_code == 200
    assert len(renders.orders) == 1


def test_an_unknown_version_is_answered_with_those_there_are(tmp_path: Path) -> None:
    answer = client(tmp_path).post(ZIP, json=ask("@flowertune/finance", "3.0.0"))
    assert answer.status_code == 404
    assert answer.json()["detail"]["available_app_versions"] == ["1.10.0", "1.9.0", "1.0.0"]


def test_an_app_has_the_versions_it_is_in(tmp_path: Path) -> None:
    answer = client(tmp_path).post(ZIP, json=ask("@flowertune/law", "1.0.0"))
    assert answer.json()["detail"]["available_app_versions"] == ["1.10.0"]


def test_an_unknown_app_is_named(tmp_path: Path) -> None:
    answer = client(tmp_path).post(ZIP, json=ask("@someone/else"))
    assert (answer.status_code, answer.json()) == (
        404,
        {"detail": "There is no app @someone/else here."},
    )


def test_flwr_prints_the_errors_nicely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flwr's own reader of answers, given the hub's."""
    hub = client(tmp_path)

    def post(url: str, headers: dict[str, str], data: str, timeout: int) -> object:
        answer = hub.post(url, headers=headers, content=data)
        answer.ok = answer.is_success  # type: ignore[attr-defined]  # as requests calls it
        return answer

    monkeypatch.setattr("requests.post", post)
    with pytest.raises(ValueError, match=r"==3.0.0 not found.*Available.*: 1.10.0, 1.9.0, 1.0.0$"):
        request_download_link("@flowertune/finance", "3.0.0", ZIP, "zip_url")
    with pytest.raises(ValueError, match=r"^@no/app not found in Platform API\.$"):
        request_download_link("@no/app", None, ZIP, "zip_url")
    with pytest.raises(ValueError, match=r"status 422.*app_version is 'x'.*x\.y\.z"):
        request_download_link("@flowertune/finance", "x", ZIP, "zip_url")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "no JSON."),
        (b"{", "no JSON."),
        (b"\xff\xfe", "no JSON."),
        (b"[]", "no JSON object."),
        (b"{}", "app_id is 'None'"),
        (json.dumps(ask(7)).encode(), "app_id is '7'"),
        (json.dumps(ask("finance")).encode(), "app_id is 'finance'"),
        (json.dumps(ask("@a/../b")).encode(), "app_id is '@a/../b'"),
        (json.dumps(ask("@a/b\n")).encode(), "app_id is '@a/b\\n'"),
        (json.dumps(ask("@" + "a" * 9000 + "/b")).encode(), "app_id is '@aaaa"),
        (json.dumps(ask("@flowertune/finance", "1.0")).encode(), "app_version is '1.0'"),
        (json.dumps(ask("@flowertune/finance", 1)).encode(), "app_version is '1'"),
        (b"[" * 10_000, "no JSON"),
    ],
)
def test_a_malformed_question_is_told_how_to_ask(body: bytes, part: str, tmp_path: Path) -> None:
    answer = client(tmp_path).post(ZIP, content=body)
    assert answer.status_code == 422
    assert part in answer.json()["detail"]
    assert '"@account/app"' in answer.json()["detail"]
    assert len(answer.content) < 500


@pytest.mark.parametrize(
    "path",
    [
        "/v1/hub/files/1.10.0/flowertune/finance.exe",
        "/v1/hub/files/1.10.0/flowertune/finance",
        "/v1/hub/files/9.9.9/flowertune/finance.zip",
        "/v1/hub/files/1.10/flowertune/finance.zip",
        "/v1/hub/files/1.10.0/..%2f..%2fetc/passwd.zip",
        "/v1/hub/files/1.10.0/flowertune/..zip",
        "/v1/hub/files/../../etc/passwd",
        "/v1/hub/files/1.10.0/a/b/c.zip",
        "/nothing",
    ],
)
def test_there_are_no_other_files(path: str, tmp_path: Path) -> None:
    renders = Renders()
    assert client(tmp_path, renders).get(path).status_code == 404
    assert renders.orders == []


def test_the_list_has_each_challenge_once(tmp_path: Path) -> None:
    hub = client(tmp_path)
    listed = hub.get("/v1/hub/apps", params={"tag": "recommended"}).json()["apps"]
    assert [app["app_id"] for app in listed] == ["@flowertune/finance", "@flowertune/law"]
    everything = hub.get("/v1/hub/apps").json()["apps"]
    assert "@flwrlabs/flowertune-llm-finance" in {app["app_id"] for app in everything}
    assert len(everything) == 5


def test_a_new_tag_is_served_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELEASES_SECONDS", 0.02)
    with client(tmp_path) as hub:
        assert hub.get("/health").json()["version"] == "1.10.0"
        git(tmp_path, "tag", "v1.11.0")
        for _ in range(200):
            if hub.get("/health").json()["version"] == "1.11.0":
                break
            time.sleep(0.02)
        assert hub.get("/health").json() == {
            "status": "ok",
            "version": "1.11.0",
            "commit": git(tmp_path, "rev-parse", "HEAD").strip(),
            "released": True,
        }


@pytest.mark.parametrize(
    "host",
    [
        "a b/<script>",
        "a:99999999",
        "a:65536",
        "a:0",
        "a:",
        ".",
        "a..b",
        "x" * 254,
        "[::1",
        "[1::2::3]",
    ],
)
def test_a_request_without_a_valid_host_is_refused(tmp_path: Path, host: str) -> None:
    hub = client(tmp_path)
    answer = hub.post(ZIP, json=ask("@flowertune/finance"), headers={"host": host})
    assert answer.status_code == 400
    assert "Host" in answer.json()["detail"]


def test_the_wrong_method_is_refused_in_json(tmp_path: Path) -> None:
    answer = client(tmp_path).get(ZIP)
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


def test_a_version_that_cannot_be_rendered_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renders = Renders()

    def fail(order: Order) -> bytes:
        if order.tag == "1.10.0":
            raise RuntimeError("a secret")
        return renders(order)

    hub = client(tmp_path, fail)
    answer = hub.post(ZIP, json=ask("@flowertune/finance"))
    assert answer.json()["zip_url"].endswith("/1.9.0/flowertune/finance.zip")
    said = "@flowertune/finance could not be rendered; the log says why"
    report = hub.get("/health")
    assert report.status_code == 200
    assert report.json()["status"] == "degraded" and report.json()["version"] == "1.9.0"
    assert report.json()["problems"] == [f"version 1.10.0 cannot be served: {said}"]
    refused = hub.post(ZIP, json=ask("@flowertune/finance", "1.10.0"))
    assert refused.status_code == 503
    assert refused.json()["detail"] == f"Version 1.10.0 cannot be served: {said}."
    assert "Version 1.9.0 of the apps" in hub.get("/").text
    # law is in 1.10.0 only
    assert hub.post(ZIP, json=ask("@flowertune/law")).status_code == 503
    assert "a secret" in caplog.text and "a secret" not in report.text + refused.text


def test_where_nothing_can_be_rendered_the_hub_is_down(tmp_path: Path) -> None:
    def fail(order: Order) -> bytes:
        raise RuntimeError("no memory")

    hub = client(tmp_path, fail)
    assert hub.post(ZIP, json=ask("@flowertune/finance")).status_code == 503
    for path in ("/", "/v1/hub/apps"):
        assert hub.get(path).status_code == 503
    report = hub.get("/health")
    assert (report.status_code, report.json()["status"]) == (503, "down")


def test_without_an_upload_store_uploads_are_refused(tmp_path: Path) -> None:
    answer = client(tmp_path).post(limits.PUBLISH_PATH, files={"files": ("a.py", b"")})
    assert answer.status_code == 403
    assert "unset FLWR_SUPERGRID_API_URL" in answer.json()["detail"]
