"""`clipzoo publish` on the tiny demo: the folder, its card, its page and its upload."""

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard, constants, parse_eval_result_entries

import clipzoo
from clipzoo.config import load_params
from clipzoo.serve import hub, publishing
from clipzoo.serve.card import license_of
from clipzoo.serve.space import PACKAGES
from console import run
from serve.fake_hub import serving, use_hub

VIDEO = "data/raw/demo_shapes"
PYPROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text()


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_numbers_of_the_card_are_those_of_the_metrics(here, tmp_path, monkeypatch, capsys):
    out = tmp_path / "mine"
    assert run(monkeypatch, "publish", "demo", out) == 0
    assert "next: clipzoo predict VIDEO --model" in capsys.readouterr().out
    first = content(out)
    assert run(monkeypatch, "publish", "demo", out) == 0
    assert content(out) == first, "equal bytes on a second call"
    card: Any = ModelCard.load(out / "README.md")
    assert str(card) == (out / "README.md").read_text()
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "video-classification")
    compared = 0
    for stem in ("test", "zero_shot_demo_unseen"):
        values = json.loads(Path(f"metrics/demo/{stem}.json").read_text())
        assert f"`{values['videos_sha256']}`" in card.text
        of_set = [r for r in card.data.eval_results if r.dataset_type == values["dataset"]]
        assert {r.metric_type for r in of_set} >= {"top1" if stem == "test" else "full_top1"}
        for result in of_set:
            key = result.metric_type
            assert result.metric_value == values[key]
            assert result.dataset_args["videos_sha256"] == values["videos_sha256"]
            interval = result.metric_args or {"ci95_low": None, "ci95_high": None}
            for end in ("low", "high"):
                assert interval[f"ci95_{end}"] == values.get(f"{key}_ci95_{end}")
            compared += 1
        stored = yaml.safe_load((out / f".eval_results/{values['dataset']}.yaml").read_text())
        entries = parse_eval_result_entries(stored)
        assert {e.task_id: e.value for e in entries} == {
            r.metric_type: r.metric_value for r in of_set
        }
        assert all(f"{values['num_videos']} videos" in str(e.notes) for e in entries)
        assert not any(e.date for e in entries)
    assert compared == len(card.data.eval_results)
    for title in ("Results", "Use", "Model", "Not measured", "Limits", "License"):
        assert f"\n## {title}\n" in card.text
    assert "on videos that clipzoo renders" in card.text
    # The tiny demo is not the recipe: it says so.
    assert "settings differ, `" in card.text
    assert "train.epochs" in card.text


def test_a_closed_folder_says_so(here, tmp_path, monkeypatch):
    assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--closed") == 0
    text = (tmp_path / "a/README.md").read_text()
    assert "A video classifier for its own 48 classes" in text
    assert "The folder is closed" in text
    assert '--class "' not in text
    assert clipzoo.load(tmp_path / "a", "cpu").config.kind == "closed"


def make_folder(path: Path, **files: str) -> None:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "demo/head-none",
            "is the model of demo, not of demo/head-none; run `clipzoo use demo/hea",
        ),
        ("demo/headnone", "found the recipe 'demo/headnone' (did you mean demo/head-none"),
        ("../demo", "found the recipe '../demo'"),
        ("", "found the recipe ''"),
    ],
)
def test_a_recipe_that_is_not_the_runs_is_refused(
    here, tmp_path, monkeypatch, capsys, recipe, message
):
    assert run(monkeypatch, "publish", recipe, tmp_path / "a") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_recipe_without_its_run_is_refused(here, tmp_path, monkeypatch, capsys):
    """params.yaml has the recipe, and the model is still that of the one before."""
    params = load_params()
    with pytest.raises(ValueError, match=r"is the model of demo, not of mine; run `dvc repro`"):
        publishing.check_recipe("mine", params.model_copy(update={"recipe": "mine"}))


def test_folders_of_others_are_left_alone(here, tmp_path, monkeypatch, capsys):
    make_folder(tmp_path / "project", **{"README.md": "mine", "notes.txt": "mine"})
    make_folder(tmp_path / "readme", **{"README.md": "mine"})
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("project", "has files that publish did not write (notes.txt)"),
        ("readme", "has files that publish did not write (README.md)"),
        ("file", "is a file; allowed: a folder"),
    ):
        before = content(tmp_path)
        assert run(monkeypatch, "publish", "demo", tmp_path / name) == 1
        assert message in capsys.readouterr().err
        assert content(tmp_path) == before
    assert run(monkeypatch, "publish", "demo", ".") == 1
    assert "has files that publish did not write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("test", None, "metrics/demo/test.json: no such file"),
        ("test", {"model_sha256": "0"}, "was measured with another model"),
        ("zero_shot_demo_unseen", {"model_sha256": ""}, "sha256 not recorded"),
        ("test", {"top1": "many"}, "test.json"),
        ("test", {"num_videos": -1}, "num_videos"),
    ],
)
def test_metrics_of_another_run_are_refused(
    demo, tmp_path, monkeypatch, capsys, file, change, message
):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in demo.path.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "metrics").unlink()
    shutil.copytree(demo.path / "metrics", copy / "metrics")
    monkeypatch.chdir(copy)
    path = Path(f"metrics/demo/{file}.json")
    values = json.loads(path.read_text())
    path.unlink()
    if change:
        path.write_text(json.dumps({**values, **change}))
    assert run(monkeypatch, "publish", "demo", tmp_path / "a") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("model", "data", "known", "words"),
    [
        ({}, {}, "mit", "trained from nothing"),
        ({"weights": "openai"}, {}, "unknown", "the CLIP weights `openai` (ViT-demo-16), whose"),
        ({"weights": "/home/ann/a.pt"}, {}, "unknown", "the CLIP weights `a.pt`"),
        ({"checkpoint": "models/zoo/b.pt"}, {}, "unknown", "the model file `b.pt`"),
        ({"weights": "random"}, {"demo": []}, "unknown", "the videos of demo_shapes, whose"),
    ],
)
def test_the_license_is_stated_only_where_it_is_known(here, model, data, known, words):
    params = load_params()
    changed = params.model_copy(
        update={
            "model": params.model.model_copy(update=model),
            "data": params.data.model_copy(update=data),
        }
    )
    name, text = license_of(changed)
    assert name == known
    assert words in text
    assert "/home" not in text


class FakeGradio(types.ModuleType):
    """What app.py uses of Gradio."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("gradio")
        self.made: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def make(*args: object, **options: object) -> types.SimpleNamespace:
            self.made[name] = options
            return types.SimpleNamespace(**options)

        return make


@pytest.mark.parametrize("kind", ["open", "closed"])
def test_the_page_of_a_space_classifies_a_video(here, tmp_path, monkeypatch, kind):
    options = ["--closed"] if kind == "closed" else []
    assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--space", *options) == 0
    space = tmp_path / "a/space"
    gradio = FakeGradio()
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    names: dict[str, Any] = {"__name__": "app", "__file__": str(space / "app.py")}
    exec(compile((space / "app.py").read_text(), "app.py", "exec"), names)
    assert len(gradio.made["Interface"]["inputs"]) == (2 if kind == "open" else 1)
    video = next(Path(VIDEO).rglob("*.mp4"))
    expected = clipzoo.load(tmp_path / "a", "cpu").predict(video)
    label, seen = names["classify"](str(video))
    assert label == dict(zip(expected.labels, expected.probabilities, strict=True))
    assert f"{len(expected.frames)} frames" in seen
    if kind == "open":
        assert set(names["classify"](str(video), "a ring\n\n a bar ")[0]) == {"a ring", "a bar"}
    for wrong in (None, __file__):
        with pytest.raises(gradio.Error):
            names["classify"](wrong)
    for line in (space / "requirements.txt").read_text().splitlines():
        assert f'    "{line}",\n' in PYPROJECT


LOADED = """
import importlib.metadata, json, pathlib, sys
sys.modules["gradio"] = __import__("types").ModuleType("gradio")
import clipzoo
assert clipzoo.__file__.startswith(sys.argv[1]), clipzoo.__file__
clipzoo.load(sys.argv[1] + "/..", "cpu").predict(sys.argv[2])
import clipzoo.serve.hub
owners = importlib.metadata.packages_distributions()
top = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({d.lower() for name in top for d in owners.get(name, [])})))
"""


@pytest.mark.slow
def test_the_requirements_of_a_space_are_what_its_page_imports(here, tmp_path, monkeypatch):
    """Its copy of the source runs alone; of clipzoo's dependencies it imports those listed."""
    assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--space") == 0
    video = next(Path(VIDEO).rglob("*.mp4")).resolve()
    space = tmp_path / "a/space"
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(space), str(video)],
        env={"PYTHONPATH": str(space), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = {name.replace("-", "_") for name in json.loads(done.stdout)}
    lines = PYPROJECT.split("dependencies = [", 1)[1].split("]", 1)[0].splitlines()
    depended = {line.strip(' ",').partition(">")[0].lower() for line in lines} - {""}
    needed = {name for name in depended if name.replace("-", "_") in imported}
    assert needed == {name.lower() for name in PACKAGES}


class RecordingApi:
    """HfApi that notes its calls."""

    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self, calls: list[tuple[str, dict[str, Any]]], fails: bool = False) -> None:
        self.calls, self.fails = calls, fails

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> Any:
        if self.fails:
            raise OSError("403 Forbidden")
        files = {o.path_in_repo: o.path_or_fileobj for o in operations}
        self.calls.append(("create_commit", {"repo_id": repo_id, "files": files, **options}))
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """The calls of an HfApi with a token and a hub that answers."""
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: RecordingApi(found))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "is_reachable", lambda _: True)
    return found


def test_push_uploads_what_was_written(here, tmp_path, monkeypatch, capsys, calls):
    out = tmp_path / "a"
    assert run(monkeypatch, "publish", "demo", out, "--push", "ann/mine", "--space") == 0
    assert [name for name, _ in calls] == ["create_repo", "create_commit"] * 2
    made, model, made_space, space = (options for _, options in calls)
    assert (made["repo_id"], made["repo_type"], made["exist_ok"]) == ("ann/mine", "model", True)
    names = {
        *("config.json", "model.safetensors", "README.md"),
        *(".eval_results/demo_shapes.yaml", ".eval_results/demo_unseen.yaml"),
    }
    assert model["files"] == {name: str(out / name) for name in names}
    assert (made_space["repo_type"], made_space["space_sdk"]) == ("space", "gradio")
    assert {"app.py", "requirements.txt", "clipzoo/__init__.py"} <= set(space["files"])
    assert "MODEL = 'hf:ann/mine'" in (out / "space/app.py").read_text()
    assert "--model hf:ann/mine" in capsys.readouterr().out


def test_a_pushed_model_is_loaded_from_the_hub(here, tmp_path, monkeypatch):
    """The whole way, over a hub on this machine that keeps what it is sent."""
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    video = next(Path(VIDEO).rglob("*.mp4"))
    with serving(tmp_path / "hub") as fake:
        use_hub(monkeypatch, fake.url, tmp_path / "cache")
        assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--push", "ann/mine") == 0
        assert fake.commits == ["clipzoo publish demo"]
        assert content(tmp_path / "hub/ann/mine") == content(tmp_path / "a")
        fetched = hub.fetch_folder("hf:ann/mine")
        assert {path.name for path in fetched.iterdir()} == {"config.json", "model.safetensors"}
    loaded = clipzoo.load(fetched, "cpu").predict(video)
    assert loaded.labels == clipzoo.load(tmp_path / "a", "cpu").predict(video).labels


def test_without_push_nothing_is_uploaded(here, tmp_path, monkeypatch, calls):
    assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--space") == 0
    assert calls == []


def test_push_needs_a_name_a_token_and_a_hub(here, tmp_path, monkeypatch, capsys, calls):
    def refused(name: str) -> str:
        assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--push", name) == 1
        assert calls == []
        assert not (tmp_path / "a").exists(), "nothing is written"
        return capsys.readouterr().err

    for name in ("mine", "ann/", "hf:ann/mine", "ann/mine@v1", "a/b/c", "ann/mi ne", ""):
        assert "allowed: OWNER/NAME" in refused(name)
    with monkeypatch.context() as patch:
        patch.setattr(hub, "is_reachable", lambda _: False)
        assert "cannot be reached" in refused("ann/mine")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "no token" in refused("ann/mine")


def test_an_upload_that_fails_leaves_the_folder(here, tmp_path, monkeypatch, capsys, calls):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: RecordingApi(calls, fails=True))
    assert run(monkeypatch, "publish", "demo", tmp_path / "a", "--push", "ann/mine") == 1
    error = capsys.readouterr().err
    assert "403 Forbidden" in error
    assert "`hf upload ann/mine" in error
    assert (tmp_path / "a/README.md").is_file()
