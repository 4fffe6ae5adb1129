"""What model.name may be, and what is said if it is not."""

from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.config.paths import is_path
from flowertune.models import resolve as models
from flowertune.models.resolve import check_folder, check_hub


def make_model(folder, files=("config.json", "model.safetensors")):
    folder.mkdir(parents=True)
    for name in files:
        # A safetensors file without a tensor: the length of its header, and the header.
        empty = b"\x02" + bytes(7) + b"{}"
        (folder / name).write_bytes(empty if name.endswith(".safetensors") else b"{}")
    return folder


def resolve(name):
    models._resolve.cache_clear()
    return models.resolve_model(name, "main", Path("/app"))


@pytest.fixture
def hub_says(monkeypatch):
    """Let every download from the hub fail with an error, or succeed with a path."""

    def set_answer(answer, online=True):
        def download(*args, local_files_only, **kwargs):
            assert local_files_only is not online
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(hub, "reachable", lambda: online)

    return set_answer


def http_error(kind, status):
    request = httpx.Request("HEAD", "https://hub.invalid/x")
    return kind("refused", response=httpx.Response(status, request=request))


@pytest.mark.parametrize("name", ["/a", "./a", "../a", "~/a"])
def test_paths_look_like_paths(name):
    assert is_path(name)
    assert not is_path("owner/name")


def test_a_local_folder_is_its_absolute_path(tmp_path):
    folder = make_model(tmp_path / "model")
    assert resolve(str(folder)) == str(folder)


def test_the_built_in_name_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(models.smollm2, "fetch", lambda: tmp_path / "built-in")
    assert resolve("smollm2-135m-instruct") == str(tmp_path / "built-in")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, "there is no folder"),
        ([], "holds no config.json"),
        (["config.json"], "holds no weights"),
        (["adapter_config.json", "adapter_model.safetensors"], "PEFT adapter, not a base model"),
    ],
)
def test_a_folder_that_is_no_model_is_one_sentence(tmp_path, files, words):
    folder = tmp_path / "model"
    if files is not None:
        make_model(folder, files)
    with pytest.raises(UserError, match=words) as caught:
        check_folder("./model", folder)
    assert "'./model'" in str(caught.value) and str(folder) in str(caught.value)


def test_a_hub_id_is_checked_by_its_config_alone(tmp_path, hub_says):
    hub_says(make_model(tmp_path / "snapshot", ["config.json"]) / "config.json")
    assert resolve("owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http_error(errors.GatedRepoError, 403), "gated.*hf auth login"),
        (http_error(errors.RepositoryNotFoundError, 404), "does not exist, or is private"),
        (http_error(errors.RevisionNotFoundError, 404), "no such revision"),
        (errors.LocalEntryNotFoundError("gone"), "cannot be reached"),
        (http_error(errors.HfHubHTTPError, 500), "refused"),
    ],
)
def test_the_reason_and_what_works_offline_are_said(hub_says, error, words):
    hub_says(error)
    with pytest.raises(UserError, match=words) as caught:
        check_hub("owner/name", "main")
    text = str(caught.value)
    assert "'owner/name'" in text and "smollm2-135m-instruct" in text and "\n" not in text


def test_a_name_that_is_no_hub_id_is_said_without_asking(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="no hub id"):
        check_hub("a/b/c", "main")


def test_offline_a_cached_config_without_weights_is_not_enough(tmp_path, hub_says):
    snapshot = make_model(tmp_path / "snapshot", ["config.json"])
    hub_says(snapshot / "config.json", online=False)
    with pytest.raises(UserError, match="its weights are not in the cache"):
        check_hub("owner/name", "main")
    (snapshot / "model.safetensors").write_text("")
    check_hub("owner/name", "main")


def test_an_unreachable_hub_is_known_at_once(monkeypatch):
    class Session:
        def head(self, url, timeout):
            assert timeout <= 10
            raise httpx.ConnectError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    hub.reachable.cache_clear()
    assert hub.reachable() is False
    hub.reachable.cache_clear()


def test_the_offline_switch_is_honored(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        "huggingface_hub.utils.get_session", lambda: pytest.fail("asked the hub although offline")
    )
    hub.reachable.cache_clear()
    assert hub.reachable() is False
    hub.reachable.cache_clear()
