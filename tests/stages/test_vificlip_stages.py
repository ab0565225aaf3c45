"""A released file of ViFi-CLIP through the scripts of the stages, against its definition."""

import copy
from pathlib import Path

import pytest
import torch
from test_evaluation_stages import NUM_SEGMENTS, predictions, raw_embeddings
from torch.nn import functional

from clipzoo.config import load_params
from clipzoo.methods import vificlip
from clipzoo.models.clip import load_clip
from clipzoo.tensors import read_safetensors
from parity.vificlip import released


def midpoints(num_frames: int) -> list[list[int]]:
    """Two clips, at a quarter and three quarters of each part."""
    part = num_frames / NUM_SEGMENTS
    return [[int(i * part + share * part) for i in range(NUM_SEGMENTS)] for share in (0.25, 0.75)]


@pytest.mark.slow
def test_a_released_file_is_evaluated_without_training(copy_of_demo, monkeypatch):
    """Features are those of its vision tower, texts those of its text tower, and the score is the
    sum over views of softmaxes, as the authors' evaluation has it."""
    monkeypatch.chdir(copy_of_demo.path)
    copy_of_demo.set(
        model__method="vificlip",
        model__checkpoint="released.pth",
        vificlip__test_sampler="midpoints",
        test__clips=2,
        train__epochs=0,
    )
    options = vificlip.Options.model_validate(load_params().options)
    towers, _ = load_clip()
    trained = vificlip.ViFiClip(copy.deepcopy(towers), options, NUM_SEGMENTS)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape))
        trained.logit_scale.fill_(3.0)
    torch.save(released(trained, dict), "released.pth")
    copy_of_demo.run_here("train")
    copy_of_demo.run_here("test")
    tensors, ids = predictions(copy_of_demo, "test")
    # The tower of models/clip.safetensors becomes the released one, to embed frames chosen by hand.
    state = {k: v for k, v in trained.state_dict().items() if k.startswith("visual.")}
    towers.load_state_dict(state, strict=False)
    monkeypatch.setattr("test_evaluation_stages.load_clip", lambda: (towers, {}))
    videos = raw_embeddings("demo_shapes", midpoints)
    features = torch.stack([videos[video_id] for video_id in ids])  # [N, V, D]
    unit = functional.normalize(features, dim=-1)
    scale = torch.tensor(3.0).exp()
    torch.testing.assert_close(tensors["features"], scale * unit, atol=1e-4, rtol=1e-4)
    text = read_safetensors("data/text/demo_shapes.safetensors")[0]
    assert trained.text is not None
    with torch.no_grad():
        classes = trained.text(text["token_ids"])[0]  # [1, K, L] -> [K, D]
    assert not torch.allclose(classes, text["class_embeddings"][0], atol=0.05)
    summed = (scale * unit @ classes.T).softmax(dim=-1).sum(dim=1)  # [N, V, K] -> [N, K]
    torch.testing.assert_close(2 * tensors["probabilities"], summed, atol=1e-5, rtol=0)
    assert Path("metrics/demo/test.json").is_file()
