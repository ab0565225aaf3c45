"""Model folders of a hub, downloaded from a small one on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, serving, use_hub
from huggingface_hub import constants

from clipzoo.config import ConfigError
from clipzoo.serve.hub import check_push, fetch_folder, push
from clipzoo.tensors import WeightsError

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 300,
    "README.md": b"# mine",
    "code.py": b"raise SystemExit",
}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[FakeHub]:
    """A hub with the repositories ann/mine and ann/half, which has no weights."""
    for name in ("mine", "half"):
        (tmp_path / "hub/ann" / name).mkdir(parents=True)
        for file, content in FILES.items():
            (tmp_path / "hub/ann" / name / file).write_bytes(content)
    (tmp_path / "hub/ann/half/model.safetensors").unlink()
    with serving(tmp_path / "hub") as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        yield hub


@pytest.mark.parametrize("name", ["hf:ann/mine", "hf:ann/mine@v1", f"hf:ann/mine@{COMMIT}"])
def test_the_two_files_of_a_model_are_downloaded_and_no_other(hub, name):
    folder = fetch_folder(name)
    assert folder.name == COMMIT
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert content == {k: FILES[k] for k in ("config.json", "model.safetensors")}
    assert not [path for path in hub.asked if path.endswith((".md", ".py"))]
    # The weights are asked for by the commit of config.json, even if the branch moves meanwhile.
    weights = [path for path in hub.asked if "safetensors" in path]
    assert weights
    assert all(COMMIT in path for path in weights)


def test_without_the_hub_the_cache_is_used(hub, monkeypatch, tmp_path):
    folder = fetch_folder("hf:ann/mine")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert fetch_folder("hf:ann/mine") == folder
    assert fetch_folder(f"hf:ann/mine@{COMMIT}") == folder
    for name in ("hf:ann/mine@v1", "hf:ann/other"):
        with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9, which cannot be reached"):
            fetch_folder(name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="is not in the cache; give a model folder"):
        fetch_folder("hf:ann/mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:ann/none", "hf:ann/none: no such repository on http"),
        ("hf:ann/mine@v2", "ann/mine has no branch, tag or commit 'v2'"),
        ("hf:ann/half", "ann/half has no model.safetensors; allowed: a folder written by"),
        ("hf:gated/mine", "asks for the consent of its owner"),
        ("hf:mine", "found 'hf:mine'; allowed: hf:OWNER/NAME or"),
        ("hf:ann/mine@", "found 'hf:ann/mine@'; allowed"),
        ("hf:ann/../mine", "allowed"),
        ("hf:ann/mine@../../x", "allowed"),
        ("hf:ann/mine/x", "allowed"),
        ("hf:ann/mine@v1@v2", "allowed"),
        ("hf:ann/mi ne", "allowed"),
        ("hf:", "allowed"),
        ("ann/mine", "allowed"),
        (f"hf:ann/{'x' * 100}", "allowed"),
    ],
)
def test_what_cannot_be_downloaded_is_named(hub, name, message):
    with pytest.raises(WeightsError) as caught:
        fetch_folder(name)
    assert message in str(caught.value)
    if message == "allowed":
        assert hub.asked == []


@pytest.mark.slow
def test_the_environment_names_the_hub(hub, tmp_path):
    """As a user sets it: the library reads HF_ENDPOINT and HF_HOME once, when it is imported."""
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    code = "from clipzoo.serve.hub import fetch_folder; print(fetch_folder('hf:ann/mine'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "home")
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_what_is_pushed_can_be_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    folder = tmp_path / "new"
    for name, content in (FILES | {".eval_results/a.yaml": b"- value: 1"}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    check_push("bob/new")
    files = ["README.md", "config.json", "model.safetensors", ".eval_results/a.yaml"]
    address = push("bob/new", folder, files, "first")
    assert address.endswith(f"/bob/new/commit/{COMMIT}")
    assert push("bob/new", folder, ["README.md"], "a page", space=True)
    assert hub.commits == ["first", "a page"]
    found = {p.relative_to(hub.root).as_posix() for p in hub.root.rglob("*") if p.is_file()}
    assert {name for name in found if "bob" in name} == {
        *(f"bob/new/{name}" for name in files), "spaces/bob/new/README.md"
    }  # fmt: skip
    fetched = fetch_folder("hf:bob/new")
    assert (fetched / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_push_that_the_hub_refuses_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.refuses_token = "hf_old"
    (tmp_path / "new").mkdir()
    (tmp_path / "new/README.md").write_text("# mine")
    (tmp_path / "new/space").mkdir()
    (tmp_path / "new/space/app.py").write_text("")
    folder = tmp_path / "new"
    with pytest.raises(
        ConfigError, match=r"--push: bob/new \(model\) cannot be uploaded to http"
    ) as found:
        push("bob/new", folder, ["README.md"], "first")
    assert f"`hf upload bob/new {folder} . --exclude 'space/*'` tries again" in str(found.value)
    with pytest.raises(ConfigError) as found:
        push("bob/new", folder / "space", ["app.py"], "a page", space=True)
    assert f"`hf upload bob/new {folder}/space . --repo-type space` tries" in str(found.value)
    assert hub.commits == []
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no token"):
        check_push("bob/new")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        check_push("bob/new")
