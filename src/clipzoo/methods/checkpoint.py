"""Model files and the training state that a killed run resumes from.

A model file is safetensors: the parameters of the method's model and, as metadata, what builds it
again. The training state is no output of DVC: it lives in .state/train/<fingerprint>/, where the
fingerprint covers every parameter and every input that training reads, so that only an identical
run resumes it.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from clipzoo.config import Params, build
from clipzoo.files import replacing
from clipzoo.methods.text4vis import Options, Text4Vis
from clipzoo.models.clip import CLIP_FILE, build_clip, load_clip, load_strictly, open_clip_name
from clipzoo.models.openai import load_released
from clipzoo.tensors import WeightsError, file_sha256, read_safetensors, write_safetensors

MODEL_FILE = "models/model.safetensors"
CLASSIFIER_FILE = "models/classifier.safetensors"
STATE_DIR = Path(".state/train")


def model_options(params: Params) -> dict[str, Any]:
    """Parameters that shape the method's model.

    Raises:
        ConfigError: the section of the method is wrong.
    """
    options = build(Options, params.options, "params.yaml", params.model.method)
    return {**options.model_dump(exclude={"loss"}), "num_segments": params.model.num_segments}


def new_model(params: Params) -> tuple[Text4Vis, dict[str, Any]]:
    """The model that training starts from: the raw CLIP's vision tower under a fresh head, or
    `model.checkpoint`.

    Returns:
        the model (float32, CPU) and the metadata of its future model file.

    Raises:
        WeightsError: models/clip.safetensors or the checkpoint is absent, or of another
            architecture.
    """
    clip, meta = load_clip()
    _check_arch(CLIP_FILE, meta["arch"], params)
    if params.model.checkpoint and not meta["quick_gelu"] and _is_released(params):
        meta = {**meta, "quick_gelu": True}  # the authors' models are all of OpenAI's family
        clip = build_clip(meta["arch"], meta["input_px"], quick_gelu=True)
    torch.manual_seed(params.seed)  # the head's initialisation
    options = model_options(params)
    model = Text4Vis(clip, **options)
    if params.model.checkpoint:
        _load_checkpoint(model, params)
    return model, {"clip": meta, "method": params.model.method, "options": options}


def load_model(params: Params, path: str | Path = MODEL_FILE) -> tuple[Text4Vis, dict[str, Any]]:
    """Build the model of a file written by `save_model`.

    Returns:
        the model (float32, CPU, evaluation mode) and its metadata.

    Raises:
        WeightsError: the file is absent, does not fit, or holds another architecture than
            `model.arch`.
    """
    tensors, metadata = read_safetensors(path)
    if "model" not in metadata:
        raise WeightsError(f"{path}: not written by train (no 'model' in its metadata)")
    meta = json.loads(metadata["model"])
    clip = meta["clip"]
    _check_arch(path, clip["arch"], params)
    towers = build_clip(clip["arch"], clip["input_px"], quick_gelu=clip["quick_gelu"])
    model = Text4Vis(towers, **meta["options"])
    load_strictly(model, tensors, str(path))
    return model.eval(), meta


def raw_model(params: Params) -> Text4Vis:
    """The raw CLIP as a video model: its own vision tower, frames averaged, nothing trained."""
    clip, _ = load_clip()
    return Text4Vis(clip, head="None", num_segments=params.model.num_segments).eval()


def save_model(model: torch.nn.Module, path: str | Path, metadata: dict[str, Any]) -> None:
    """Write a model file: a new file, renamed into place."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    write_safetensors(tensors, path, {"model": json.dumps(metadata, sort_keys=True)})


def _check_arch(path: str | Path, found: str, params: Params) -> None:
    wanted = open_clip_name(params.model.arch)
    if found != wanted:
        raise WeightsError(
            f"{path} holds {found}, but model.arch is {wanted}; "
            "run `dvc repro` to make it again, or set model.arch to what the file holds"
        )


def save_classifier(class_embeddings: torch.Tensor) -> None:
    """Write the class embeddings [P, K, D] that the model was trained against (or that its own
    text tower gives): the classifier that `test` uses."""
    write_safetensors(
        {"class_embeddings": class_embeddings.cpu().contiguous()}, CLASSIFIER_FILE, {}
    )


def load_classifier() -> torch.Tensor:
    """Class embeddings [P, K, D] of the trained model."""
    return read_safetensors(CLASSIFIER_FILE)[0]["class_embeddings"]


def _is_released(params: Params) -> bool:
    return Path(params.model.checkpoint).suffix != ".safetensors"


def _load_checkpoint(model: Text4Vis, params: Params) -> None:
    """Load `model.checkpoint`: a model file of this project or one that the authors released."""
    path = Path(params.model.checkpoint)
    if not path.is_file():
        raise WeightsError(f"model.checkpoint: {path} is no file; give its path or '' for none")
    if _is_released(params):
        tensors = load_released(path)
    else:
        tensors, metadata = read_safetensors(path)
        if "model" in metadata:
            _check_arch(path, json.loads(metadata["model"])["clip"]["arch"], params)
    load_strictly(model, tensors, f"model.checkpoint {path}")


def fingerprint(params: Params, inputs: list[Path]) -> str:
    """Identity of a training run, 16 hex digits: its parameters (all but `runtime`, which cannot
    change a result) and the bytes of its input files."""
    digest = hashlib.sha256(json.dumps(params.settings(), sort_keys=True).encode())
    for path in inputs:
        digest.update(f"{path}={file_sha256(path)}".encode())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Where a run stands after `step` optimizer steps."""

    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    history: list[dict[str, float]]
    """One row per optimizer step, with the validation score where one was taken."""
    best: dict[str, float]
    """Epoch and score of the best validation so far; empty before the first."""
    average: dict[str, torch.Tensor]
    """Mean weights of the epochs to average so far; empty before the first."""


def save_state(state: TrainingState, directory: Path) -> None:
    """Write the state; a kill leaves the previous one whole."""
    with replacing(directory / "state.pt") as part:
        torch.save(vars(state), part)


def load_state(directory: Path) -> TrainingState | None:
    """The state of an interrupted identical run, or None."""
    path = directory / "state.pt"
    if not path.is_file():
        return None
    return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))


def remove_state(directory: Path) -> None:
    """Delete the state of a run that ended well."""
    shutil.rmtree(directory, ignore_errors=True)
