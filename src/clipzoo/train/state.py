"""The state that a killed training run resumes from.

It is not an output of DVC: it lives in .state/train/<fingerprint>/. The fingerprint covers every
parameter and every input that training reads, so only an identical run resumes from it. The
exceptions are parameters that change nothing but rounding: if the compiler fails halfway, the run
can continue without it.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clipzoo.config import Params
from clipzoo.files import file_sha256, replacing
from clipzoo.paths import STATE_DIR
from clipzoo.runtime.distributed import gather_objects, rank

TRAIN_STATE_DIR = STATE_DIR / "train"
STATE_FILE, PREVIOUS_FILE = "state.pt", "previous.pt"
ROUNDING = {"train.compile", "train.fused"}
"""Parameters in which a run may differ from the one that it continues."""


class StateError(ValueError):
    """A state cannot be used; the message names its file."""


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

    All parameters but `runtime` and ROUNDING count, the bytes of the files that training reads
    (`inputs`), and of `runtime` the part that changes a result (`split`, of `split_settings`).
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
    """Write the state to a new file and rename it; the one before becomes PREVIOUS_FILE.

    So a kill or a power failure leaves at least one of the two intact.

    Raises:
        DiskError: the disk is full; the state before is intact.
    """
    content = {
        "progress": vars(progress),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    moments = (value for state in optimizer.state.values() for value in state.values())
    tensors = (*content["model"].values(), *progress.average.values(), *moments)
    num_bytes = sum(value.nbytes for value in tensors if isinstance(value, Tensor))
    path = directory / STATE_FILE
    with replacing(path, num_bytes=num_bytes) as part:
        with part.open("wb") as file:  # given a path, torch would not say why it cannot write
            torch.save(content, file)
        if path.is_file():
            path.replace(directory / PREVIOUS_FILE)


def load_state(
    directory: Path,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> Progress:
    """Load the state of an interrupted identical run; without one, progress starts at step 0.

    A damaged state is removed; the one before takes its place, or training starts from scratch.

    Raises:
        StateError: another version of this program wrote it.
    """
    # One rank chooses for all, which might otherwise continue from different steps.
    name = gather_objects(_newest_intact(directory) if rank() == 0 else "")[0]
    if not name:
        return Progress()
    path = directory / name
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**content["progress"])
        if list(content["model"]) != list(model.state_dict()):  # the moments are by position
            raise ValueError("it has other parameters, or in another order")
        model.load_state_dict(content["model"])
        for saved, group in zip(
            content["optimizer"]["param_groups"], optimizer.param_groups, strict=True
        ):
            saved["fused"] = group["fused"]  # else `load_state_dict` takes over the saved value
        optimizer.load_state_dict(content["optimizer"])
        scaler.load_state_dict(content["scaler"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StateError(
            f"{path}: does not fit ({' '.join(str(error).split())}); another version of this "
            f"program wrote it: use that one, or remove {directory} to train from the start"
        ) from error
    progress.average = {name: mean.to(device) for name, mean in progress.average.items()}
    return progress


def _newest_intact(directory: Path) -> str:
    """Name of the state to continue from, "" for none; removes damaged ones and says so."""
    faults, intact = [], ""
    for path in (directory / STATE_FILE, directory / PREVIOUS_FILE):
        if path.is_file() and (fault := _fault(path)):
            faults.append(f"{path}: is damaged ({fault})")
            path.unlink()
        elif path.is_file():
            intact = path.name
            break
    if faults:
        start = f"continues from {intact}" if intact else "starts from scratch"
        print(f"{'; '.join(faults)}; training {start}", flush=True)
    return intact


def _fault(path: Path) -> str:
    """What is wrong with a state file, "" if nothing; finds any changed byte that matters."""
    try:
        with zipfile.ZipFile(path) as archive:  # the format of torch.save
            damaged = archive.testzip()  # compares checksums, which torch does not
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except PermissionError:
        raise
    except Exception as error:  # whatever these libraries make of random bytes
        return (str(error) or type(error).__name__).splitlines()[0]
    return f"wrong checksum of {damaged}" if damaged else ""


def remove_state(directory: Path) -> None:
    """Delete the state of a finished run."""
    shutil.rmtree(directory, ignore_errors=True)
