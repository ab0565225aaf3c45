"""Weights between two vision towers, their accuracies, and the choice among them."""

import csv
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from clipzoo.config import Params, load_params, replace
from clipzoo.data.records import Record
from clipzoo.evaluate import interpolation
from clipzoo.evaluate.interpolation import (
    VAL_CURVE,
    accuracy_curve,
    chosen_alpha,
    describe_choice,
    interpolate,
    write_curve,
)
from clipzoo.methods import save_model
from clipzoo.methods.parts.raw import FrameMean
from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.clip import build_clip, read_clip_metadata, save_clip
from clipzoo.paths import CLIP_FILE
from clipzoo.settings import training_settings
from parity.inputs import class_text
from tiny import text4vis_options

CPU = torch.device("cpu")
ARCH, PX, SEGMENTS = "ViT-demo-16", 16, 2
OPTIONS = text4vis_options(head_layers=1)


def raw_clip() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_clip(ARCH, PX)


def tuned_model() -> Text4Vis:
    torch.manual_seed(1)
    return Text4Vis(build_clip(ARCH, PX), OPTIONS, SEGMENTS)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.7, 1.0])
def test_the_vision_tower_is_a_mean_and_the_rest_stays_tuned(alpha):
    tower, tuned = raw_clip().get_submodule("visual"), tuned_model()
    raw, before = tower.state_dict(), {k: v.clone() for k, v in tuned.state_dict().items()}
    mixed = interpolate(tower, tuned, alpha).state_dict()
    num_between = 0
    for name, value in before.items():
        assert torch.equal(tuned.state_dict()[name], value), "the tuned model is left as it is"
        other = raw.get(name.removeprefix("visual."), value) if "visual." in name else value
        torch.testing.assert_close(mixed[name], (1 - alpha) * other + alpha * value)
        num_between += not torch.equal(other, value)
    # All but the norms, which start as ones and zeros: both towers have these alike.
    assert num_between > 10
    assert torch.equal(mixed["visual.proj"], raw["proj"]) == (alpha == 0)
    assert torch.equal(mixed["visual.proj"], before["visual.proj"]) == (alpha == 1)


def test_what_the_raw_tower_does_not_have_stays_tuned():
    tower, tuned = raw_clip().get_submodule("visual"), tuned_model()
    raw = {name: value for name, value in tower.state_dict().items() if name != "proj"}
    partial_tower = SimpleNamespace(state_dict=lambda: raw)
    mixed = interpolate(partial_tower, tuned, 0.0).visual.state_dict()  # pyright: ignore[reportArgumentType]
    assert torch.equal(mixed["proj"], tuned.visual.state_dict()["proj"])
    assert torch.equal(mixed["conv1.weight"], raw["conv1.weight"])


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters for the models above, in a folder that holds both as the stages leave them."""
    monkeypatch.chdir(tmp_path)
    raw, tuned = raw_clip(), tuned_model()
    save_clip(raw, CLIP_FILE, arch=ARCH, input_px=PX, source="random")
    metadata = {
        "clip": read_clip_metadata(),
        "method": "text4vis",
        "num_segments": SEGMENTS,
        "options": OPTIONS.model_dump(),
    }
    values = {"model.num_segments": SEGMENTS, "model.input_px": PX, "text4vis.head_layers": 1}
    values |= {"zero_shot.interpolation": [0.0, 0.5, 1.0]}
    values |= {"runtime.micro_batch": 4, "runtime.workers": 1}
    params = replace(load_params(Path(__file__).parents[2] / "params.yaml"), values)
    metadata |= {"recipe": "demo", "settings": training_settings(params.settings())}
    save_model(tuned, "models/model.safetensors", metadata)
    return params


class NoiseClips:
    """Six videos of noise, with one view each."""

    view_names = ("clip0-center",)

    def __init__(self, labels: Iterable[int] = range(6)) -> None:
        self.records = [Record(str(label), 9, label) for label in labels]

    def load(self, position: int) -> Tensor:
        generator = torch.Generator().manual_seed(position)
        shape = (1, SEGMENTS, 3, PX, PX)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def embeddings_at(alpha: float) -> Tensor:
    """Video embeddings [6, D] of the tuned model with its tower mixed by hand."""
    raw, model = raw_clip().get_submodule("visual").state_dict(), tuned_model().eval()
    tuned = model.visual.state_dict()
    mixed = {name: (1 - alpha) * raw[name] + alpha * tuned[name] for name in tuned}
    model.visual.load_state_dict(mixed)
    frames = torch.cat([NoiseClips().load(i) for i in range(6)])
    with torch.no_grad():
        return functional.normalize(model.encode(frames), dim=-1)


def test_the_curve_has_the_accuracy_of_each_mixed_model(params):
    """The classes are the videos as one mixed model or another sees them, so each model is right
    on the videos whose label is of its own class: 3, 2 and 1 of 6."""
    models = [embeddings_at(alpha) for alpha in (0.0, 0.5, 1.0)]
    videos = torch.arange(6)
    classes = torch.cat(models)[None]  # [1, 18, D]: video i as model m sees it is class 6 m + i
    labels = videos + 6 * torch.tensor([0, 0, 0, 1, 1, 2])
    for model, embeddings in enumerate(models):  # else the answers below would be others
        assert torch.equal((embeddings @ classes[0].T).argmax(1), 6 * model + videos)
    clips = NoiseClips(labels.tolist())
    text = class_text(classes)
    rows = accuracy_curve(params, CPU, tuned_model(), clips, text, "test")  # pyright: ignore
    assert [row[0] for row in rows] == [0.0, 0.5, 1.0]
    assert [row[1] for row in rows] == [pytest.approx(100 * n / 6) for n in (3, 2, 1)]
    for _, top1, low, high in rows:
        assert low < top1 < high


def test_the_curve_is_of_the_model_that_is_measured(params):
    """That of zero_shot may be the tower alone: each video is its class as the tower sees it, not
    as the head does."""
    frames = torch.cat([NoiseClips().load(i) for i in range(6)])
    tower = FrameMean(tuned_model()).eval()
    with torch.no_grad():
        seen = functional.normalize(tower.encode(frames), dim=-1)
    text = class_text(torch.cat([seen, embeddings_at(1.0)])[None])
    params = replace(params, {"zero_shot.interpolation": [1.0]})
    for model, expected in ((tower, 100), (tuned_model(), 0)):
        ((alpha, top1, *_),) = accuracy_curve(
            params,
            CPU,
            model,
            NoiseClips(),  # pyright: ignore[reportArgumentType]
            text,
            "test",
        )
        assert (alpha, top1) == (1, expected)


VAL_ROWS = [(0.0, 50.0, 40.0, 60.0), (0.5, 80.0, 70.0, 90.0), (0.75, 79.0, 69.0, 89.0)]
UNSEEN_ROWS = [(0.0, 90.0, 80.0, 95.0), (0.5, 70.0, 60.0, 85.0), (0.75, 30.0, 20.0, 40.0)]


@pytest.mark.parametrize(
    ("top1", "expected"),
    [
        ((50.0, 80.0, 79.0), 0.5),
        ((50.0, 80.0, 80.0), 0.75),
        ((80.0, 80.0, 79.0), 0.5),
        ((9.0, 10.0, 9.5), 0.5),  # as numbers, not as text
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_most_accurate_alpha_is_chosen_and_of_equals_the_largest(
    tmp_path, top1, expected, order
):
    rows = [(alpha, value, 0.0, 100.0) for (alpha, *_), value in zip(VAL_ROWS, top1, strict=True)]
    path = tmp_path / "curve.csv"
    write_curve(rows[::order], path)
    assert chosen_alpha(interpolation.read_curve(path)) == expected


def read_curve(path: Path) -> list[tuple[float, ...]]:
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["alpha", "top1", "top1_ci95_low", "top1_ci95_high"]
    return [tuple(map(float, row)) for row in rows]


def test_alpha_is_chosen_on_validation_and_measured_on_the_unseen_set(
    tmp_path, monkeypatch, figures: list[Figure]
):
    monkeypatch.chdir(tmp_path)
    write_curve(VAL_ROWS, VAL_CURVE)
    assert read_curve(VAL_CURVE) == VAL_ROWS
    values = describe_choice(UNSEEN_ROWS, tmp_path / "plots")
    assert values == {
        "interpolated_alpha": 0.5,
        "interpolated_top1": 70.0,
        "interpolated_top1_ci95_low": 60.0,
        "interpolated_top1_ci95_high": 85.0,
    }
    assert read_curve(tmp_path / "plots/interpolation.csv") == UNSEEN_ROWS
    assert (tmp_path / "plots/pictures/interpolation.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    shown = {
        str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.get_lines()
    }
    curves = {"validation, seen classes": VAL_ROWS, "unseen dataset": UNSEEN_ROWS}
    assert shown == {
        name: [[alpha, top1] for alpha, top1, *_ in rows] for name, rows in curves.items()
    }
    bands = [
        {tuple(p) for p in np.asarray(band.get_paths()[0].vertices).tolist()}
        for band in axes.collections
    ]
    for band, rows in zip(bands, curves.values(), strict=True):
        assert band == {(a, end) for a, _, low, high in rows for end in (low, high)}
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(curves)


def test_without_interpolation_nothing_is_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_curve([], VAL_CURVE)
    assert describe_choice([], tmp_path / "plots") == {}
    assert not (tmp_path / "plots").exists()
