"""Five optimizer steps of a tiny run, whose numbers tests/golden/traces.json holds.

Everything that feeds the numbers is a function of names and seeds and of integer arithmetic, so
that only the arithmetic of training itself differs between machines. As a script (started by
torchrun) it prints the traces of all cases as JSON.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.config import Params, load_params, replace
from clipzoo.data.records import Record
from clipzoo.data.store import VideoInfo
from clipzoo.methods import new_model
from clipzoo.models.clip import build_clip, save_clip
from clipzoo.models.text import ClassText, tokenize
from clipzoo.paths import CLIP_FILE
from clipzoo.runtime.distributed import barrier, rank, start
from clipzoo.train.loop import train
from clipzoo.train.plan import make_plan
from clipzoo.train.setup import Run
from clipzoo.train.state import TRAIN_STATE_DIR, remove_state
from parity.inputs import fill, noise

ROOT = Path(__file__).parent.parent.parent
ARCH, INPUT_PX, NUM_SEGMENTS, NUM_FRAMES = "ViT-demo-16", 32, 3, 9
CLASS_NAMES = ["a dog", "a cat", "two red fish"]
NUM_PICKED, NUM_ALL = 5, 12  # few-shot: 5 clips, shown twice an epoch
NUM_STEPS = 5
CPU = torch.device("cpu")
NONE: Mapping[str, Any] = {}
TRAIN = {
    "epochs": 2,
    "warmup_epochs": 1,
    "batch_size": 4,  # 10 clips an epoch: steps of 4, 4 and 2
    "lr": 3e-3,
    "weight_decay": 0.2,
    "steps_per_lr_update": 2,
    "grad_clip": 0.5,
    "val_every": 2,
}
CASES = {
    f"{loss}-{precision}": {
        "text4vis.loss": loss,
        "text4vis.text_tower": tower,
        "train.precision": precision,
    }
    for loss, tower in (("ce", "frozen"), ("infonce", "trained"))
    for precision in ("fp32", "bf16")
} | {
    "vcs-fp32": {"model.method": "bike"},
    "dp-ds-fp32": {
        "model.method": "bike",
        "bike.head": "None",
        "bike.interaction": "DP",
        "bike.loss": "ds",
    },
    "actionclip-fp32": {
        "model.method": "actionclip",
        "text.templates": ["{}", "a photo of {}", "{}, a video"],
    },
}


class NoiseStore:
    """Videos of random pixels, in the place of a frame store."""

    def __init__(self) -> None:
        self.videos = {f"v{i}": VideoInfo(NUM_FRAMES, 48, 40, 0.0, i) for i in range(NUM_PICKED)}

    def read(self, video_id: str, indices: Any) -> np.ndarray:
        """uint8 [T, 40, 48, 3]: 10 x 12 random squares of 4 x 4 pixels a frame."""
        rng = np.random.RandomState(int(video_id[1:]))
        squares = rng.randint(0, 256, (NUM_FRAMES, 10, 12, 3)).astype(np.uint8)
        return squares.repeat(4, axis=1).repeat(4, axis=2)[np.asarray(indices)]


def case_params(case: str, micro_batch: int, changes: Mapping[str, Any]) -> Params:
    values: dict[str, Any] = {f"train.{key}": value for key, value in TRAIN.items()}
    values |= CASES[case]
    values |= {"data.shots": 2, "augment.short_side_px": 36, "augment.grayscale": 0.2}
    values |= {"model.num_segments": NUM_SEGMENTS, "model.input_px": INPUT_PX}
    values |= {"text4vis.head_layers": 1, "bike.head_layers": 1, "actionclip.head_layers": 1}
    values |= {"test.short_side_px": 36}
    values |= {"runtime.micro_batch": micro_batch, "runtime.workers": 1}
    return replace(load_params(ROOT / "params.yaml"), {**values, **changes})


def make_run(
    case: str, micro_batch: int, *, device: torch.device = CPU, changes: Mapping[str, Any] = NONE
) -> Run:
    """The run of a case with some changes of its parameters, in the current folder."""
    params = case_params(case, micro_batch, changes)
    if rank() == 0 and not CLIP_FILE.exists():
        clip = build_clip(ARCH, INPUT_PX)
        fill(clip)
        save_clip(clip, CLIP_FILE, arch=ARCH, input_px=INPUT_PX, source="test")
    barrier()
    method, metadata = new_model(params)
    fill(method)
    torch.nn.init.constant_(method.get_parameter("logit_scale"), math.log(10))
    records = [Record(f"v{i}", NUM_FRAMES, i % len(CLASS_NAMES)) for i in range(NUM_PICKED)]
    store, px, short = NoiseStore(), INPUT_PX, params.test.short_side_px
    plan, sampler = make_plan(params, NUM_PICKED, NUM_ALL), method.train_sampler
    return Run(
        params=params,
        device=device,
        method=method.to(device),
        metadata=metadata,
        clips=TrainClips(
            store, records, TrainTransform(px, params.augment), NUM_SEGMENTS, 7, sampler
        ),
        val_clips=ViewClips(
            store, records, ViewTransform(px, short, 1), NUM_SEGMENTS, clips=1, dense=False
        ),
        text=class_text(params.text.templates).to(device),
        plan=dataclasses.replace(plan, max_steps=NUM_STEPS),
        state_dir=TRAIN_STATE_DIR / case,
        log_dir=Path("plots") / case,
    )


@functools.cache
def token_ids(*texts: str) -> Tensor:
    """Of texts, [N, 12] int64."""
    return tokenize(ARCH, list(texts), 12)


def class_text(templates: Sequence[str]) -> ClassText:
    texts = [template.format(name) for template in templates for name in CLASS_NAMES]
    shape = (len(templates), len(CLASS_NAMES))
    embeddings = functional.normalize(noise(3, *shape, 128), dim=-1)
    return ClassText(
        token_ids=token_ids(*texts).unflatten(0, shape),
        class_embeddings=embeddings,
        class_names=CLASS_NAMES,
        token_embeddings=noise(4, len(CLASS_NAMES), 12, 128),
    )


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter that training changes."""
    named = model.named_parameters()
    return {name: p.detach().double().clone() for name, p in named if p.requires_grad}


def sums(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, float]:
    """Sum of the weights' absolute values, and of how far they moved."""
    moved = sum(float((after[name] - before[name]).abs().sum()) for name in before)
    return {"weights": sum(float(p.abs().sum()) for p in after.values()), "moved": moved}


def trace(
    case: str, micro_batch: int, *, device: torch.device = CPU, changes: Mapping[str, Any] = NONE
) -> dict[str, Any]:
    """The losses of the five steps, and sums of the weights after them."""
    run = make_run(case, micro_batch, device=device, changes=changes)
    before = trained_parameters(run.method)
    train(run)
    if rank() != 0:
        return {}
    remove_state(run.state_dir)
    curve = run.log_dir / "plots/metrics/loss.tsv"
    losses = [float(line.split()[1]) for line in curve.read_text().splitlines()[1:]]
    return {"losses": losses, **sums(before, trained_parameters(run.method))}


def main() -> None:
    start("cpu")
    torch.set_num_threads(1)
    traces = {case: trace(case, micro_batch=4) for case in CASES}
    if rank() == 0:
        print(json.dumps(traces))


if __name__ == "__main__":
    main()
