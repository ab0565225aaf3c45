"""What methods read of videos."""

from pathlib import Path

import pytest
import torch

from clipzoo.clips.inputs import FrameInputs, Inputs, SentenceInputs
from clipzoo.config import ConfigError, load_params, replace
from clipzoo.models.pixels import OPENAI

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
WORDS = {"model.inputs": "attributes", "attributes.datasets": ["demo_shapes"]}
SENTENCES = replace(PARAMS, WORDS)
META = torch.device("meta")


def sentences(params=SENTENCES) -> SentenceInputs:
    return SentenceInputs(params=params, dataset="demo_shapes", sentence=" ".join, length=12)


def test_examples_have_the_shape_and_type_of_clips():
    """Nothing is opened for them: there are neither frames nor attributes here."""
    frames = FrameInputs(params=PARAMS, dataset="nowhere", pixels=OPENAI).example(3, META)
    side, num_segments = PARAMS.model.input_px, PARAMS.model.num_segments
    assert (frames.shape, frames.dtype) == ((3, num_segments, 3, side, side), torch.uint8)
    tokens = sentences().example(3, META)
    assert (tokens.shape, tokens.dtype) == ((3, 12), torch.int64)


def test_inputs_other_than_those_that_dvc_depends_on_are_refused():
    with pytest.raises(ConfigError, match=r"model\.inputs: found attributes; allowed: frames"):
        FrameInputs(params=SENTENCES, dataset="demo_shapes", pixels=OPENAI)
    with pytest.raises(ConfigError, match=r"model\.inputs: found frames; allowed: attributes"):
        sentences(PARAMS)


def test_a_training_depends_on_the_attribute_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("data/attributes/demo_shapes")
    folder.mkdir(parents=True)
    for name in ("train.json", "val.json", "other.txt"):
        (folder / name).touch()
    inputs: list[Inputs] = [
        sentences(),
        FrameInputs(params=PARAMS, dataset="demo_shapes", pixels=OPENAI),
    ]
    assert [x.files for x in inputs] == [[folder / "train.json", folder / "val.json"], []]
