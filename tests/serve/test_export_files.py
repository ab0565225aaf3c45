"""Exported files give what the model gives, where neither torch nor this package is installed."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from clipzoo.config import ConfigError
from clipzoo.files import DiskError
from clipzoo.serve import export, export_formats
from clipzoo.serve.classifier import Classifier
from clipzoo.serve.export import ExportError, export_model
from clipzoo.serve.model import VideoModel
from exporting import CASES, Case, P, T, arguments, folder

OF_FRAMES = [name for name, case in CASES.items() if case.method != "bike_attributes"]
"""A method of sentences cannot read a video, and `model_of_run` refuses it."""
DEFAULT = {"bike"}
"""Frames weighted by words, so with all inputs. The others are slow tests."""
PROGRAMS = ("raw", "text4vis-temporal_module-tsm", "bike", "actionclip-head-LSTM")
"""The cases that are also written as .pt2; tests/methods/test_export.py has the programs of all."""
BATCHES = ((1, 7), (2, 4), (3, 1), (5, 5))
"""Numbers of videos and of classes."""
OUTSIDE = """
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for path in sys.argv[2:]:
    arrays = dict(np.load(path))
    inputs = {i.name: arrays[i.name] for i in session.get_inputs()}
    for output, value in zip(session.get_outputs(), session.run(None, inputs), strict=True):
        assert value.dtype == np.float32, output.name
        assert value.shape == arrays[output.name].shape, output.name
        print(np.abs(value - arrays[output.name]).max())
assert not {"torch", "clipzoo"} & set(sys.modules), "the process has torch"
"""
"""What somebody runs who has NumPy and onnxruntime alone."""


def model_of(name: str, num_classes: int = 4) -> VideoModel:
    return VideoModel(folder(name, num_classes), "cpu")


def expected_of(name: str, path: Path) -> list[Path]:
    """Files with inputs of several sizes, and what the model gives of them."""
    files, classifier = [], Classifier(folder(name).method)
    for batch, classes in BATCHES:
        inputs = arguments(CASES[name], batch, classes)
        with torch.no_grad():
            outputs = classifier(*inputs)
        arrays: dict[str, Any] = dict(zip(export_formats.INPUTS, inputs, strict=False)) | outputs
        files.append(path / f"{batch}.npz")
        np.savez(files[-1], **{key: value.numpy() for key, value in arrays.items()})
    return files


@pytest.fixture(scope="module")
def onnx_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], export.Exported]:
    """Exports a case, once."""
    return cache(
        lambda name: export_model(model_of(name), tmp_path_factory.mktemp(name) / "new/mine.onnx")
    )


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[] if c in DEFAULT else [pytest.mark.slow]) for c in OF_FRAMES]
)
def test_a_file_gives_what_the_model_gives(name: str, tmp_path: Path, onnx_of):
    found = onnx_of(name)
    assert found.difference < 1e-5
    assert [path.name for path in found.files] == ["mine.onnx", "mine.npz"]
    command = [sys.executable, "-W", "error", "-c", OUTSIDE, found.files[0]]
    done = subprocess.run(
        [*command, *expected_of(name, tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    differences = [float(line) for line in done.stdout.splitlines()]
    assert len(differences) == 3 * len(BATCHES)
    assert max(differences) < 1e-5


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[] if c in DEFAULT else [pytest.mark.slow]) for c in PROGRAMS]
)
def test_a_program_gives_what_the_model_gives(name: str, tmp_path: Path):
    found = export_model(model_of(name), tmp_path / "mine.pt2")
    about = {export_formats.METADATA_FILE: ""}
    program = torch.export.load(found.files[0], extra_files=about)
    assert json.loads(about[export_formats.METADATA_FILE]) == found.about
    for path in expected_of(name, tmp_path):
        arrays = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
        inputs = [arrays[key] for key in export_formats.INPUTS if key in arrays]
        for key, value in program.module()(*inputs).items():
            torch.testing.assert_close(value, arrays[key], rtol=0, atol=1e-5)


def test_the_metadata_say_how_frames_are_made(onnx_of):
    model, found = model_of("bike"), onnx_of("bike")
    proto = onnx.load(found.files[0])
    (content,) = [p.value for p in proto.metadata_props if p.key == export_formats.METADATA_KEY]
    about = json.loads(content)
    assert about == found.about
    assert about["class_names"] == model.class_names
    assert about["templates"] == model.config.templates
    assert about["weights_sha256"] == model.config.weights_sha256
    assert (about["num_segments"], about["sampler"]) == (T, "first")
    preprocessing = about["preprocessing"]
    assert preprocessing["crop_px"] == model.config.clip.input_px
    assert preprocessing["normalization"] == "in the graph"
    assert preprocessing["mean"] == list(model.config.clip.pixels.mean)
    sizes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    size, dim, words = preprocessing["crop_px"], model.text.dim, model.text.token_embeddings
    assert words is not None
    assert sizes == {
        "frames": ["batch", T, 3, size, size],
        "class_embeddings": [P, "classes", dim],
        "token_embeddings": ["classes", words.shape[1], dim],
        "probabilities": ["batch", "classes"],
        "cosines": ["batch", "classes"],
        "embedding": ["batch", dim],
    }
    text = np.load(found.files[1], allow_pickle=False)
    assert text["class_names"].tolist() == model.class_names
    for key in ("class_embeddings", "token_embeddings"):
        np.testing.assert_array_equal(text[key], getattr(model.text, key))


def test_a_trained_text_tower_is_not_written(tmp_path: Path):
    model = model_of("actionclip")
    method, _ = model.method_and_text()
    assert any(name.startswith("text.") for name in method.state_dict())
    program = torch.export.load(export_model(model, tmp_path / "mine.pt2").files[0])
    assert program.state_dict
    assert not any("text." in name for name in program.state_dict)


@pytest.mark.slow
def test_the_zero_shot_path_is_a_graph_of_its_own(tmp_path: Path, monkeypatch):
    """BIKE's, which needs no words: its graph does not ask for them."""
    monkeypatch.setitem(CASES, "frames", Case("bike", {"zero_shot_scoring": "frames"}, "stem"))
    model, found = model_of("frames"), {}
    for zero_shot in (False, True):
        path = tmp_path / f"{zero_shot}.pt2"
        found[zero_shot] = export_model(model, path, zero_shot=zero_shot)
        assert found[zero_shot].difference < 1e-5
        assert found[zero_shot].about["zero_shot"] is zero_shot
        text = np.load(found[zero_shot].files[1])
        assert ("token_embeddings" in text) is not zero_shot
        inputs = torch.export.load(path).graph_signature.user_inputs
        assert len(inputs) == (2 if zero_shot else 3)


def test_a_model_of_one_class(tmp_path: Path):
    assert export_model(model_of("text4vis", 1), tmp_path / "mine.pt2").difference < 1e-5


@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_a_graph_that_gives_something_else_is_not_kept(value: float, tmp_path: Path, monkeypatch):
    """In one output, for three videos alone."""
    model = model_of("text4vis")
    classifier = Classifier(model.method_and_text()[0])

    def write(program, path: Path, about) -> export_formats.Runner:
        path.write_text("a graph")

        def run(inputs: export_formats.Inputs) -> dict[str, torch.Tensor]:
            found = classifier(*inputs)
            found["cosines"][-1, -1] += value * (len(inputs[0]) == 3)
            return found

        return run

    (tmp_path / "mine.pt2").write_text("an earlier one")
    monkeypatch.setitem(export_formats.WRITERS, ".pt2", write)
    with pytest.raises(ExportError, match=r"mine\.pt2: not written, .* differ .* allowed: 0\.0001"):
        export_model(model, tmp_path / "mine.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pt2"]
    assert (tmp_path / "mine.pt2").read_text() == "an earlier one"
    value = 0
    export_model(model, tmp_path / "mine.pt2")
    assert (tmp_path / "mine.pt2").read_text() == "a graph"


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_a_full_disk_leaves_nothing(ending: str, tmp_path: Path, limit_file_size):
    model = model_of("text4vis")
    limit_file_size(40_000)
    with pytest.raises(DiskError, match=f"mine{ending}"):
        export_model(model, tmp_path / f"mine{ending}")
    assert not list(tmp_path.iterdir())


def test_what_torch_cannot_export_is_named(tmp_path: Path, monkeypatch):
    def encode(inputs: torch.Tensor) -> torch.Tensor:
        return inputs.new_zeros(int(inputs.sum()), 32)  # a size that depends on the pixels

    model = model_of("text4vis")
    monkeypatch.setattr(model.method_and_text()[0], "encode", encode)
    with pytest.raises(ExportError, match=r"torch .* cannot export text4vis with ViT-demo-16"):
        export_model(model, tmp_path / "mine.pt2")


@pytest.mark.parametrize("name", ["mine.txt", "mine", "mine.ONNX", "folder.onnx", "mine.onnx.npz"])
def test_other_files_are_refused_before_any_work(name: str, tmp_path: Path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigError, match=rf"{name}: found .*; allowed: OUT\.onnx or OUT\.pt2"):
        export.check_output(tmp_path / name)


@pytest.mark.parametrize("package", export.PACKAGES)
def test_a_missing_package_is_named(package: str, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(ConfigError, match=rf"{package} cannot be found; .*\[onnx\].*OUT\.pt2"):
        export.check_output(Path("mine.onnx"))
    export.check_output(Path("mine.pt2"))
