"""The state that a killed training run resumes from.

It is not an output of DVC: it lives in .state/train/<fingerprint>/. The fingerprint covers every
parameter and every input that training reads, so only an identical run resumes from it. The
exceptions are parameters that change nothing but rounding: if the compiler fails halfway, the run
goes on without it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clipzoo.config import Params
from clipzoo.files import replacing
from clipzoo.tensors import file_sha256

STATE_DIR = Path(".state/train")
ROUNDING = {"train.compile", "train.fused"}
"""Parameters in which a run may differ from the one that it continues."""


@dataclass(kw_only=True)
class Progress:
    """How far a run has got."""

    step: int = 0
    """Optimizer steps taken."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row per optimizer step, with the validation score where one was taken."""
    best: dict[str, float] = field(default_factory=dict)
    """Epoch and score of the best validation so far; empty before the first."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """Mean weights of the epochs to average so far; empty before the first."""
    skipped_steps: int = 0
    """Steps that the scaler of fp16 has skipped, because their gradients overflowed."""


def fingerprint(params: Params, inputs: list[Path], split: Mapping[str, int]) -> str:
    """Identity of a training run, 16 hex digits.

    Args:
        params: all but `runtime` and ROUNDING belong to it.
        inputs: files, by their bytes.
        split: of `split_settings`, the part of `runtime` that changes a result.
    """
    settings = {k: v for k, v in params.settings().items() if k not in ROUNDING}
    digest = hashlib.sha256(json.dumps({**settings, **split}, sort_keys=True).encode())
    for path in inputs:
        digest.update(f"{path}={file_sha256(path)}".encode())
    return digest.hexdigest()[:16]


def save_state(
    directory: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write the state to a new file and rename it: a kill leaves the previous one intact."""
    content = {
        "progress": vars(progress),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    with replacing(directory / "state.pt") as part:
        torch.save(content, part)


def load_state(
    directory: Path,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> Progress:
    """Load the state of an interrupted identical run; without one, progress starts at step 0."""
    path = directory / "state.pt"
    if not path.is_file():
        return Progress()
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(content["model"])
    for saved, group in zip(
        content["optimizer"]["param_groups"], optimizer.param_groups, strict=True
    ):
        saved["fused"] = group["fused"]  # otherwise `load_state_dict` would set the saved one
    optimizer.load_state_dict(content["optimizer"])
    scaler.load_state_dict(content["scaler"])
    progress = Progress(**content["progress"])
    progress.average = {name: mean.to(device) for name, mean in progress.average.items()}
    return progress


def remove_state(directory: Path) -> None:
    """Delete the state of a finished run."""
    shutil.rmtree(directory, ignore_errors=True)
