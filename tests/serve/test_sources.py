"""Names of models: folders, the hub and open_clip's pretrained tags, whose weights a test makes."""

import copy
import json
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory, get_model_config
from open_clip.pretrained import _PRETRAINED
from PIL import Image
from torch.nn import functional

import clipzoo
from clipzoo import __main__
from clipzoo.commands.predict import open_model
from clipzoo.config import ConfigError
from clipzoo.models import weights
from clipzoo.models.clip import build_clip, uses_quick_gelu
from clipzoo.models.pixels import OPENAI, PIXELS
from clipzoo.serve import sources
from clipzoo.serve.model import VideoModel
from clipzoo.serve.openclip import TEMPLATES, raw_clip
from clipzoo.serve.sources import read_model
from clipzoo.serve.video_file import VideoFile
from clipzoo.tensors import WeightsError
from videos import make_video

ARCH, PX = "ViT-demo-tag", 32
WEIGHTS = "open_clip_pytorch_model.bin"
TAGS: dict[str, dict[str, Any]] = {
    "openai": {"hf_hub": "timm/demo.openai/", "quick_gelu": True},
    "siglip": {
        "hf_hub": "timm/demo.siglip/",
        "mean": PIXELS["siglip"].mean,
        "std": PIXELS["siglip"].std,
        "resize_mode": "squash",
    },
}
CLASSES = ["a red ring", "a blue bar", "a green disc"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An architecture with two tags, of which a folder of this machine has the files; no network.

    open_clip's configuration says GELU, and OpenAI's tag QuickGELU, as with ViT-B-32.
    """
    config = copy.deepcopy(get_model_config("ViT-demo-16"))
    assert config is not None
    config["vision_cfg"]["image_size"] = PX
    monkeypatch.setitem(factory._MODEL_CONFIGS, ARCH, {**config, "quick_gelu": False})
    monkeypatch.setitem(_PRETRAINED, ARCH, copy.deepcopy(TAGS))
    monkeypatch.setattr(weights.huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("CLIPZOO_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    state = build_clip(ARCH, PX).state_dict()
    for tag in TAGS.values():
        path = tmp_path / tag["hf_hub"] / WEIGHTS
        path.parent.mkdir(parents=True)
        torch.save(state, path)
    return tmp_path


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("siglip", False)])
def test_a_tag_has_its_activation_and_pixels(place: Path, tag: str, quick: bool, capsys):
    found = read_model(f"openclip:{ARCH}/{tag}")
    assert found.towers is not None
    assert uses_quick_gelu(found.towers) is uses_quick_gelu(found.method) is quick
    pixels = OPENAI if quick else PIXELS["siglip"]
    assert found.method.pixels == found.config.clip.pixels == pixels
    assert found.config.clip.quick_gelu is quick
    assert (found.config.kind, found.config.class_names) == ("open", [])
    assert found.text.class_embeddings.shape == (1, 0, 128)
    assert not any(p.requires_grad for p in found.method.parameters())
    done = capsys.readouterr()
    assert not done.out  # --json writes there
    assert f"demo.{tag}" in done.err


@pytest.mark.parametrize("tag", list(TAGS))
def test_a_video_is_scored_as_open_clip_scores_its_frames(place: Path, tag: str, tmp_path: Path):
    """open_clip's own loading, preprocessing and towers, on the frames that the model saw."""
    file = make_video(tmp_path / "a.mkv", 24, size="120x72")
    model = VideoModel(raw_clip(f"openclip:{ARCH}/{tag}"), "cpu")
    found = model.predict(file, CLASSES, top=3)
    assert len(found.frames) == 8
    about = TAGS[tag]
    clip, _, transform = open_clip.create_model_and_transforms(
        ARCH,
        pretrained=str(place / about["hf_hub"] / WEIGHTS),
        force_quick_gelu=about.get("quick_gelu", False),
        image_mean=about.get("mean"),
        image_std=about.get("std"),
        image_resize_mode=about.get("resize_mode"),
    )
    towers: Any = clip.eval()
    preprocess: Any = transform
    store = VideoFile(file, model.config.frames)
    jpegs = store.read(store.name, found.frames)
    frames = torch.stack([preprocess(Image.open(BytesIO(jpeg))) for jpeg in jpegs])
    prompts = open_clip.get_tokenizer(ARCH)([TEMPLATES[0].format(name) for name in CLASSES])
    with torch.no_grad():
        video = functional.normalize(towers.encode_image(frames).mean(dim=0), dim=0)
        cosines = functional.normalize(towers.encode_text(prompts), dim=-1) @ video
    order = [found.labels.index(name) for name in CLASSES]
    mine = torch.tensor([found.cosines, found.probabilities])[:, order]
    expected = torch.stack([cosines, (100 * cosines).softmax(dim=0)])
    torch.testing.assert_close(mine, expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(model.embed(file), video, rtol=0, atol=2e-4)


def test_the_wrong_pixels_or_activation_would_be_seen(place: Path, tmp_path: Path):
    """The two tags have the same tensors, and give other embeddings than the tolerance above."""
    file = make_video(tmp_path / "a.mkv", 24, size="120x72")
    one, other = (VideoModel(raw_clip(f"openclip:{ARCH}/{t}"), "cpu") for t in TAGS)
    assert float((one.embed(file) - other.embed(file)).abs().max()) > 0.01
    texts = one.embed_text(CLASSES) - other.embed_text(CLASSES)
    assert float(texts.abs().max()) > 0.002


def test_it_has_no_classes_of_its_own(place: Path, tmp_path: Path):
    model = clipzoo.load(f"openclip:{ARCH}/openai", "cpu")
    with pytest.raises(ConfigError, match=r'class_names: found none.* --class "a, b" or --classes'):
        model.predict(make_video(tmp_path / "a.mkv"))
    with pytest.raises(ConfigError, match="class_names: found none"):
        model.predict(tmp_path / "a.mkv", [])


def test_the_digest_is_that_of_the_tensors(place: Path):
    quick, again = (read_model(f"openclip:{ARCH}/openai").config for _ in range(2))
    assert quick.weights_sha256 == again.weights_sha256
    path = place / TAGS["openai"]["hf_hub"] / WEIGHTS
    state = torch.load(path)
    state["visual.proj"][0, 0] += 1
    torch.save(state, path)
    changed = read_model(f"openclip:{ARCH}/openai").config
    assert changed.weights_sha256 != quick.weights_sha256


def test_without_a_network_it_says_what_to_do(place: Path):
    (place / TAGS["openai"]["hf_hub"] / WEIGHTS).unlink()
    with pytest.raises(WeightsError) as caught:
        read_model(f"openclip:{ARCH}/openai")
    text = str(caught.value)
    assert text.startswith(f"openclip:{ARCH}/openai: its weights have to be downloaded from https:")
    for way in ("CLIPZOO_WEIGHTS", "HF_HOME", "HF_ENDPOINT", "model folder"):
        assert way in text
    assert "model.weights" not in text  # no parameter of a run is at fault


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"found no architecture and tag; allowed: openclip:ARCH/TAG, as openclip:ViT-B-32/op"),
        ("ViT-B-32", "found no architecture and tag; allowed"),
        ("ViT-B-32/", "found no tag; allowed"),
        ("/openai", "found no architecture"),
        ("ViT-B-33/openai", r"architecture 'ViT-B-33' \(did you mean ViT-B-32"),
        (
            "ViT-B-32/openal",
            r"tag 'openal' \(did you mean openai\?\); allowed for ViT-B-32: op",
        ),
        ("ViT-demo-16/openai", "allowed for ViT-demo-16: none"),
        ("local-dir:nowhere", r"openclip:local-dir:nowhere: .*nowhere/open_clip_config\.json"),
    ],
)
def test_wrong_names_of_open_clip(name: str, message: str):
    with pytest.raises((ConfigError, WeightsError), match=message):
        read_model(f"openclip:{name}")


def test_either_spelling_of_an_architecture(place: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenAI writes ViT-B/32."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-demo-8", factory._MODEL_CONFIGS[ARCH])
    monkeypatch.setitem(_PRETRAINED, "ViT-demo-8", copy.deepcopy(TAGS))
    found = read_model("openclip:ViT-demo/8/openai")
    assert found.config.clip.arch == "ViT-demo-8"


def test_a_model_of_open_clip_in_a_folder(place: Path, tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (place / TAGS["openai"]["hf_hub"] / WEIGHTS).rename(folder / WEIGHTS)
    about = {"model_cfg": factory._MODEL_CONFIGS[ARCH], "preprocess_cfg": {"mean": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    found = read_model(f"openclip:local-dir:{folder}")
    assert found.config.clip.source == "pretrained"
    assert found.config.clip.config == about["model_cfg"]
    assert found.method.pixels.mean == (0.5, 0.5, 0.5)
    model = VideoModel(found, "cpu")
    assert len(model.predict(make_video(tmp_path / "a.mkv"), CLASSES).labels) == 3


def test_other_names_are_folders_or_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Path | str] = []
    fake: Any = ModuleType("clipzoo.serve.hub")
    fake.fetch_folder = lambda name: read.append(name) or tmp_path
    monkeypatch.setitem(sys.modules, "clipzoo.serve.hub", fake)
    monkeypatch.setattr(sources, "read_folder", lambda folder: read.append(folder))
    (tmp_path / "config.json").touch()
    read_model("hf:owner/name@main")
    read_model(str(tmp_path))
    assert read == ["hf:owner/name@main", tmp_path, str(tmp_path)]


def test_the_command_line_and_python_read_the_same_names(place: Path):
    name = f"openclip:{ARCH}/openai"
    assert open_model(name, "cpu").config == clipzoo.load(name, "cpu").config
    with pytest.raises(WeightsError, match=r"nowhere/config\.json"):
        clipzoo.load("nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, r"params\.yaml: cannot be read .* give a model folder, hf:OWNER/NAME or openclip:"),
        ("models", r"models/config\.json: no such file; .* `clipzoo publish .* models/mine\?\)$"),
        ("models/none", r"models/none/config\.json: no such file; a model folder has config\.json"),
    ],
)
def test_where_no_model_is_found_it_says_what_to_give(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Path("models/mine").mkdir(parents=True)
    Path("models/mine/config.json").touch()
    with pytest.raises((ConfigError, WeightsError), match=message):
        read_model(name)


def test_publish_outside_a_project_says_where_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["clipzoo", "publish", "demo", "out"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "publish: found no params.yaml in this folder; it writes" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_named_as_the_option(monkeypatch):
    def fail(*_: object) -> None:
        raise ConfigError("device: found 'cuda'; allowed here: auto, cpu")

    monkeypatch.setattr("clipzoo.serve.model.load", fail)
    with pytest.raises(ConfigError, match=r"^--device: found 'cuda'; allowed here: auto, cpu$"):
        open_model(None, "cuda")
