"""Files that parameters name, as dependencies of stages."""

import json
import os
from pathlib import Path

import pytest

from clipzoo.config import Params, load_params, replace
from clipzoo.files import file_sha256
from clipzoo.given_files import DIGESTS_DIR, LINKS_DIR, record_given_files, remove_links

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    LINKS_DIR.mkdir(parents=True)
    (LINKS_DIR / ".gitignore").write_text("*\n")
    return load_params(ROOT / "params.yaml")


def digests(stage: str) -> dict[str, str]:
    return json.loads((DIGESTS_DIR / f"{stage}.json").read_text())


def links() -> dict[str, str]:
    return {path.name: os.readlink(path) for path in LINKS_DIR.iterdir() if path.is_symlink()}


def test_each_stage_has_the_digests_of_its_files_alone(params):
    Path("x.pt").write_text("one")
    Path("words.txt").write_text("two")
    values = {"model.checkpoint": "x.pt", "attributes.lexicon": "words.txt"}
    values |= {"model.weights": "gone/w.pt", "attributes.weights": "openai"}
    values["attributes.arch"] = "ViT-B-32"
    record_given_files(replace(params, values))
    assert digests("train") == {"model.checkpoint": file_sha256("x.pt")}
    assert digests("attributes") == {"attributes.lexicon": file_sha256("words.txt")}
    assert digests("prepare_clip") == {}
    here = Path.cwd()
    assert links() == {
        "model.checkpoint": str(here / "x.pt"),
        "attributes.lexicon": str(here / "words.txt"),
    }
    record_given_files(params)  # '' and demo
    assert [digests(stage) for stage in ("prepare_clip", "attributes", "train")] == [{}] * 3
    assert links() == {}
    assert (LINKS_DIR / ".gitignore").is_file()


def test_links_at_which_dvc_would_stop_are_removed(params):
    for name in ("x.pt", "y.pt"):
        Path(name).write_text(name)
    values = {"model.checkpoint": "x.pt", "attributes.lexicon": "y.pt"}
    record_given_files(replace(params, values))
    Path("x.pt").unlink()
    remove_links(broken=True)
    assert list(links()) == ["attributes.lexicon"]


def test_the_files_of_an_architecture_in_a_folder_are_given(params):
    Path("mine").mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "README.md"):
        Path("mine", name).write_text(name)
    record_given_files(replace(params, {"model.arch": "local-dir:mine"}))
    assert digests("prepare_clip") == {
        f"model.arch.{name}": file_sha256(Path("mine", name))
        for name in ("open_clip_config.json", "open_clip_model.safetensors")
    }
    record_given_files(replace(params, {"model.arch": "local-dir:nowhere"}))
    assert digests("prepare_clip") == {}
