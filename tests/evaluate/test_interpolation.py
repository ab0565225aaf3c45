"""Weights between two vision towers, and the choice among them."""

import pytest
import torch

from clipzoo.evaluate.interpolation import chosen_alpha, describe_choice, interpolate, write_curve
from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.clip import build_clip


def model(seed: int) -> Text4Vis:
    torch.manual_seed(seed)
    return Text4Vis(build_clip("ViT-demo-16", 16), head="Transf", num_segments=2, head_layers=1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_only_the_vision_tower_is_interpolated(alpha):
    raw, tuned = model(0), model(1)
    tuned_before = {k: v.clone() for k, v in tuned.state_dict().items()}
    mixed = interpolate(raw.visual, tuned, alpha).state_dict()
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, tuned_before[name]), "the tuned model is left as it is"
        expected = value
        if name.startswith("visual."):
            expected = (1 - alpha) * raw.state_dict()[name] + alpha * value
        torch.testing.assert_close(mixed[name], expected)


def test_alpha_is_chosen_on_validation_and_told_of_the_unseen_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "predictions/interpolation.csv"
    write_curve([(0.0, 50.0, 40.0, 60.0), (0.5, 80.0, 70, 90), (1.0, 80.0, 70, 90)], path)
    assert chosen_alpha(path) == 1.0
    unseen = [(0.0, 90.0, 80.0, 95.0), (0.5, 70.0, 60.0, 80.0), (1.0, 30.0, 20.0, 40.0)]
    values = describe_choice(unseen, tmp_path / "plots")
    assert values == {
        "interpolated_alpha": 1.0,
        "interpolated_top1": 30.0,
        "interpolated_ci95_low": 20.0,
        "interpolated_ci95_high": 40.0,
    }
    assert (tmp_path / "plots/interpolation.png").stat().st_size > 1000
    assert len((tmp_path / "plots/interpolation.csv").read_text().splitlines()) == 4
