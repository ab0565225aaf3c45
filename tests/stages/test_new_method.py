"""A method is added by its file, its line in METHODS and its section in params.yaml."""

import json
from pathlib import Path

import pytest

TOY = '''"""The mean of the frames, after a linear layer."""

from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.methods.parts.similarity import scaled_cosines, text4vis_probabilities
from clipzoo.models.text import ClassText
from clipzoo.sections import Section


class Options(Section):
    bias: bool


class Toy(Method):
    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers)
        self.visual = towers.get_submodule("visual")
        self.fusion_model = nn.Linear(128, 128, bias=options.bias)

    def encode(self, inputs: Tensor) -> Tensor:
        frames = frame_embeddings(self.visual, self.normalize(inputs))  # [b, T, D]
        return self.fusion_model(frames).mean(dim=1)  # [b, T, D] -> [b, D]

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        return functional.cross_entropy(scaled_cosines(features, text.ensemble()), batch.texts)

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        return scaled_cosines(features, text.class_embeddings, 1.0)  # [N, V, K]

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        return text4vis_probabilities(features, text.class_embeddings)
'''
METHODS = "src/clipzoo/methods/__init__.py"
EDITS = {
    "    text4vis,\n    vificlip,\n)": "    text4vis,\n    toy,\n    vificlip,\n)",
    '    "raw": MethodSpec': '    "toy": MethodSpec(toy.Options, toy.Toy),\n    "raw": MethodSpec',
}


DATASETS = ("demo_shapes", "demo_unseen")


@pytest.mark.slow
def test_a_method_is_added_by_its_file_its_line_and_its_section(fresh_workspace):
    root: Path = fresh_workspace.path
    fresh_workspace.set(demo__train_videos=1, train__epochs=1, train__warmup_epochs=0)
    for dataset in DATASETS:
        fresh_workspace.run_here("make_demo", dataset)
    for stage in ("check_names", "prepare_clip"):
        fresh_workspace.run_here(stage)
    for stage in ("extract_frames", "build_lists"):
        for dataset in DATASETS:
            fresh_workspace.run_here(stage, dataset)

    (root / "src/clipzoo/methods/toy.py").write_text(TOY)
    text = (root / METHODS).read_text()
    for old, new in EDITS.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (root / METHODS).write_text(text)
    fresh_workspace.set(recipe="toy", model__method="toy", toy={"bias": False})

    for dataset in DATASETS:
        fresh_workspace.run("embed_labels", dataset)
    assert "toy ViT-demo-16" in fresh_workspace.run("train")
    fresh_workspace.run("test")
    fresh_workspace.run("zero_shot", "demo_unseen")
    fresh_workspace.run("report")
    found = {p.stem: json.loads(p.read_text()) for p in (root / "metrics/toy").glob("*.json")}
    assert found.keys() == {"train", "test", "zero_shot_demo_unseen"}
    assert found["test"]["num_videos"] == 48
    settings = json.loads((root / "plots/toy/test/settings.json").read_text())
    assert settings["toy.bias"] is False
    results = (root / "RESULTS.md").read_text()
    assert "toy" in results
    assert f"{found['test']['top1']:.1f}" in results
