"""Files in the form in which the authors release theirs, evaluated through the stages."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from clipzoo import methods
from clipzoo.config import ConfigError, load_params
from clipzoo.models.clip import load_clip


@pytest.mark.slow
def test_a_released_file_of_bike_is_evaluated_without_training(copy_of_demo, monkeypatch):
    copy_of_demo.set(
        model__method="bike", model__checkpoint="released.pt", bike__head_layers=1, train__epochs=0
    )
    monkeypatch.chdir(copy_of_demo.path)
    clip, _ = load_clip()
    whole = {name: value.clone() for name, value in clip.state_dict().items()}
    torch.manual_seed(1)
    model = methods.build(load_params(), clip)
    positions = "fusion_model.frame_position_embeddings.weight"
    torch.nn.init.normal_(model.get_parameter(positions))
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    trained["visual.proj"] *= 1.5
    head = {
        name.removeprefix("fusion_model."): value
        for name, value in trained.items()
        if name.startswith("fusion_model.")
    }
    whole |= {name: value for name, value in trained.items() if name in whole}
    content = {"epoch": 19, "model_state_dict": whole, "fusion_model_state_dict": head}
    torch.save(content | {"optimizer_state_dict": {"state": {}}}, "released.pt")
    for dataset in ("demo_shapes", "demo_unseen"):
        copy_of_demo.run_here("embed_labels", dataset)
    copy_of_demo.run_here("train")
    saved = load_file("models/model.safetensors")
    assert saved.keys() == trained.keys()
    for name, value in trained.items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0)
    copy_of_demo.run_here("test")
    copy_of_demo.run_here("zero_shot", "demo_unseen")
    found = {p.stem: json.loads(p.read_text()) for p in copy_of_demo.path.glob("metrics/demo/*")}
    assert found["train"]["steps"] == 0
    assert found["test"]["num_videos"] == 48
    assert found["zero_shot_demo_unseen"]["num_videos"] == 24
    features = load_file("predictions/test.safetensors")["features"]
    assert features.shape[-2:] == (load_params().model.num_segments, 128)


def test_a_released_file_of_mote_is_evaluated_with_its_share_of_the_raw_clip(
    copy_of_demo, monkeypatch
):
    copy_of_demo.set(
        model__method="mote",
        model__checkpoint="released.pt",
        mote__head_layers=1,
        train__epochs=0,
        train__raw_clip_share=0.25,
        text__templates=["a {}", "the {}"],
    )
    monkeypatch.chdir(copy_of_demo.path)
    clip, _ = load_clip()
    raw = {name: value.clone() for name, value in clip.state_dict().items()}
    torch.manual_seed(1)
    model = methods.build(load_params(), clip)
    known = torch.nn.functional.normalize(torch.randn(6, 128), dim=-1)
    model.get_submodule("fusion_model").register_buffer("spe_cls_feature", known)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    trained["visual.proj"] *= 1.5
    head = {k.removeprefix("fusion_model."): v for k, v in trained.items() if "fusion" in k}
    vision = {k: v for k, v in trained.items() if "fusion" not in k}
    content = {"epoch": 29, "model_state_dict": vision, "fusion_model_state_dict": head}
    torch.save(content, "released.pt")
    for dataset in ("demo_shapes", "demo_unseen"):
        copy_of_demo.run_here("embed_labels", dataset)
    copy_of_demo.run_here("train")
    expected = {
        name: 0.75 * value + 0.25 * raw[name] if name in vision else value
        for name, value in trained.items()
    }
    torch.testing.assert_close(load_file("models/model.safetensors"), expected)
    copy_of_demo.run_here("test")
    copy_of_demo.run_here("zero_shot", "demo_unseen")
    # A child that starts from the model that was saved has the same one, without another share.
    shutil.copy("models/model.safetensors", "kept.safetensors")
    copy_of_demo.set(model__checkpoint="kept.safetensors")
    copy_of_demo.run_here("train")
    torch.testing.assert_close(load_file("models/model.safetensors"), expected)
    copy_of_demo.set(train__raw_clip_share=0.1)
    with pytest.raises(ConfigError, match=r"train\.raw_clip_share: found 0\.1; allowed: 0\.25"):
        copy_of_demo.run_here("train")
    features = load_file("predictions/zero_shot_demo_unseen.safetensors")["features"]
    assert features.shape == (24, 1, 2 + 5, 128)
