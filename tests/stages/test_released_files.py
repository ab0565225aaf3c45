"""A file in the form in which BIKE's authors release theirs, evaluated through the stages."""

import json

import pytest
import torch
from safetensors.torch import load_file

from clipzoo import methods
from clipzoo.config import load_params
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
