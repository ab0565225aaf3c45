"""Mean, std and resize of the weights: where they are known from, and that the input has them."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import nn
from torch.nn import functional

from clipzoo.clips.transforms import TrainTransform, ViewTransform, resize_frame
from clipzoo.config import PixelsName, load_params, replace
from clipzoo.methods.parts.raw import FrameMean
from clipzoo.models import known_pixels
from clipzoo.models.clip import build_clip, load_clip, read_clip_metadata, save_clip
from clipzoo.models.known_pixels import (
    pixels_of_arch,
    pixels_of_file,
    pixels_of_stand_in,
    pixels_of_tag,
)
from clipzoo.models.pixels import (
    OPENAI,
    PIXELS,
    Pixels,
    normalize,
    pixels_of,
    preprocess_config,
)
from clipzoo.models.weights import load_weights
from clipzoo.tensors import WeightsError, read_safetensors, write_safetensors
from tiny import Towers

ARCH, PX = "ViT-demo-16", 32


def test_every_tag_has_pixels_that_have_a_name():
    tags = open_clip.list_pretrained()
    found = {str(pixels_of_tag(name, tag)) for name, tag in tags}
    assert found < {str(pixels) for pixels in PIXELS.values()}
    assert set(get_args(PixelsName)) == {"auto", *PIXELS}
    assert len({str(pixels) for pixels in PIXELS.values()}) == len(PIXELS)


@pytest.mark.parametrize(
    ("name", "tag", "pixels"),
    [
        ("ViT-B-32", "openai", "openai"),
        ("ViT-L-14", "laion2b_s32b_b82k", "half"),
        ("ViT-H-14-quickgelu", "dfn5b", "openai-squash"),
        ("ViT-B-16-SigLIP2", "webli", "siglip"),
        ("ViT-H-14-CLIPA", "datacomp1b", "clipa"),
        ("MobileCLIP-S1", "datacompdr", "mobileclip"),
        ("MobileCLIP2-S4", "dfndr2b", "mobileclip2"),
        ("PE-Core-T-16-384", "meta", "pe"),
    ],
)
def test_pixels_are_those_of_the_tag(name: str, tag: str, pixels: str):
    assert pixels_of_tag(name, tag) == PIXELS[pixels]
    assert tag in pixels_of_arch(name)[pixels]


@pytest.mark.parametrize("name", [k for k, p in PIXELS.items() if p.interpolation != "linear"])
def test_views_are_what_open_clip_makes_of_a_picture(name: str):
    """One crop at the input size, of a wide picture: within one gray level of PIL."""
    pixels, rng = PIXELS[name], np.random.default_rng(3)
    picture = np.kron(rng.integers(0, 256, (9, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    config = PreprocessCfg(size=PX, **preprocess_config(pixels))
    transform: Any = image_transform_v2(config, is_train=False)
    expected: torch.Tensor = transform(Image.fromarray(picture))
    view = ViewTransform(PX, PX, 1, pixels)(picture[None])[0, 0]
    level = 1.01 / 255 / min(pixels.std)
    assert (normalize(view, pixels) - expected).abs().max() <= level


@pytest.mark.parametrize(("width", "height"), [(160, 90), (90, 160), (40, 30)])
def test_linear_resizes_are_not_antialiased(width: int, height: int):
    """Within one gray level of torch's bilinear resize of floats; an antialiased one is not."""
    rng, pixels = np.random.default_rng(4), PIXELS["openai-linear"]
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    short = min(width, height)
    size = (height * PX // short, width * PX // short)
    floats = torch.from_numpy(picture).permute(2, 0, 1)[None].float()  # [H, W, 3] -> [1, 3, H, W]
    found = torch.from_numpy(resize_frame(picture, PX, pixels)).permute(2, 0, 1).float()
    for antialias in (False, True):
        expected = functional.interpolate(floats, size, mode="bilinear", antialias=antialias)[0]
        near = (found - expected).abs().max() <= 1
        assert bool(near) == (not antialias or short < PX)


def test_training_squashes_too():
    """A crop of the whole squashed frame has the left edge, which a square crop cuts off."""
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :10] = 255
    whole = {"min_area": 1.0, "max_area": 1.0, "min_aspect": 1.0, "max_aspect": 1.0}
    off = {"flip": 0.0, "grayscale": 0.0, "short_side_px": PX, **whole}
    augment = replace(load_params().augment, off)
    rng = np.random.default_rng(0)
    clip = TrainTransform(PX, augment, PIXELS["siglip"])(picture[None], rng)
    assert clip[0, :, :, 0].min() > 250
    assert clip[0].float().mean() == pytest.approx(255 / 8, abs=1)


STATE = {"a.weight": torch.tensor([[0.1]]), "ln_1.weight": torch.tensor([0.3])}
"""Trained in float32."""
OPENAIS = {"a.weight": torch.tensor([[0.1]]).half(), "ln_1.weight": torch.tensor([0.3])}


def test_a_file_whose_pixels_are_not_known_is_refused_with_the_choices(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save(STATE, path)
    with pytest.raises(WeightsError, match=r"half \(mean 0\.5 .*laion2b_s32b_b82k; set model"):
        pixels_of_file("ViT-L-14", path, STATE, has_key=True)
    with pytest.raises(WeightsError, match="give a tag instead"):
        pixels_of_file("ViT-L-14", path, STATE, has_key=False)
    assert pixels_of_file("ViT-L-14", path, OPENAIS, has_key=True) == OPENAI
    assert pixels_of_file("PE-Core-B-16", path, STATE, has_key=True) == PIXELS["pe"]
    assert pixels_of_file(ARCH, path, STATE, has_key=False) == OPENAI


def test_a_file_with_the_digest_of_a_tag_has_its_pixels(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.pt"
    torch.save(STATE, path)
    found = {"ViT-L-14": "laion2b_s32b_b82k", "ViT-H-14": "dfn5b"}
    monkeypatch.setattr(known_pixels, "tag_of_file", lambda name, _: (name, found[name]))
    assert pixels_of_file("ViT-L-14", path, STATE, has_key=True) == PIXELS["half"]
    assert pixels_of_file("ViT-H-14", path, STATE, has_key=True) == PIXELS["openai-squash"]


def test_stand_ins_of_an_architecture_with_several_are_openais():
    assert pixels_of_stand_in("ViT-L-14") == OPENAI
    assert pixels_of_stand_in("MobileCLIP2-S0") == PIXELS["mobileclip"]


def test_weights_files_keep_their_pixels(tmp_path: Path):
    path = tmp_path / "clip.safetensors"
    towers = build_clip(ARCH, PX, pixels=PIXELS["pe"])
    save_clip(towers, path, arch=ARCH, input_px=PX, source="a test")
    assert pixels_of(load_clip(path)[0]) == PIXELS["pe"]
    # Taken as weights of another run, it says so itself; what is set wins.
    assert pixels_of(load_weights(ARCH, str(path), PX)) == PIXELS["pe"]
    assert pixels_of(load_weights(ARCH, str(path), PX, pixels="clipa")) == PIXELS["clipa"]
    tensors, metadata = read_safetensors(path)
    earlier = json.loads(metadata["clip"])
    del earlier["pixels"]
    write_safetensors(tensors, path, {"clip": json.dumps(earlier)})
    assert pixels_of(load_clip(path)[0]) == OPENAI
    earlier["pixels"] = {**PIXELS["pe"].model_dump(), "resize": "longest"}
    write_safetensors(tensors, path, {"clip": json.dumps(earlier)})
    with pytest.raises(WeightsError, match=r"metadata\.clip\.pixels\.resize: found 'longest'"):
        read_clip_metadata(path)
    earlier["pixels"] = {**PIXELS["pe"].model_dump(), "std": [0.5, 0.0, 0.5]}
    write_safetensors(tensors, path, {"clip": json.dumps(earlier)})
    with pytest.raises(WeightsError, match=r"pixels\.std: found .*; allowed: numbers above 0"):
        read_clip_metadata(path)


def test_a_resize_that_this_project_does_not_have_is_refused():
    towers = Towers(nn.Identity())
    visual: Any = towers.visual
    visual.preprocess_cfg["resize_mode"] = "longest"
    with pytest.raises(WeightsError, match="resize: found 'longest'"):
        pixels_of(towers)


@pytest.mark.parametrize("name", ["openai", "siglip"])
def test_a_method_normalizes_for_its_weights(name: str):
    class Tower(nn.Module):
        def forward(self, frames):
            return frames.amax(dim=(2, 3))  # [bT, 3, S, S] -> [bT, 3]

    model, pixels = FrameMean(Towers(Tower(), PIXELS[name])), PIXELS[name]
    frames = torch.tensor([[0, 51, 255]], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    expected = (torch.tensor([0, 0.2, 1]) - torch.tensor(pixels.mean)) / torch.tensor(pixels.std)
    torch.testing.assert_close(model.encode(frames)[0], expected)
    assert model.pixels == pixels
    assert not model.state_dict()  # released files do not have them
    with torch.device("meta"):  # as the estimates of memory build their models
        assert FrameMean(Towers(Tower())).shift.shape == (3, 1, 1)


def test_pixels_in_words():
    assert str(PIXELS["pe"]) == "mean 0.5 0.5 0.5, std 0.5 0.5 0.5, bilinear, squash"
    assert Pixels.model_validate(json.loads(OPENAI.model_dump_json())) == OPENAI
