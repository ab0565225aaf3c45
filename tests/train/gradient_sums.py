"""Gradients of single steps of a tiny model; as a script (under torchrun), those of every rank."""

import copy
import functools
import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from clipzoo.methods import bike, bike_attributes, text4vis
from clipzoo.methods.parts.method import Method
from clipzoo.models.clip import build_clip
from clipzoo.models.text import ClassText, tokenize
from clipzoo.parity.inputs import fill, noise
from clipzoo.parity.model import bike_options
from clipzoo.runtime.distributed import gather_objects, rank, start
from clipzoo.train.gradients import StepGradients, micro_batches
from tiny import attributes_options, text4vis_options

ARCH, PX, NUM_SEGMENTS = "ViT-demo-16", 32, 2
CLASS_NAMES = ["a dog", "a cat", "two red fish", "an owl"]
LABELS = [2, 0, 0, 1, 2, 2, 1, 0]
CASES = {
    "ce": text4vis_options(head_layers=1),
    "infonce": text4vis_options(head_layers=1, loss="infonce"),
    "infonce-trained": text4vis_options(head_layers=1, loss="infonce", text_tower="trained"),
    "vcs": bike_options(head_layers=1),
    "attributes": attributes_options(),
    "dp-ds": bike_options(head="None", interaction="DP", loss="ds"),
}
MODULES = {module.Options: module for module in (bike, bike_attributes, text4vis)}
CPU = torch.device("cpu")
STEPS = [(8, 2), (3, 2), (3, 1)]
"""(clips of a step, clips of a micro-batch); of 3 clips, some of 4 processes have none."""


def make_method(case: str) -> Method:
    return copy.deepcopy(_method(case))


@functools.cache
def _method(case: str) -> Method:
    options: Any = CASES[case]
    module = MODULES[type(options)]
    method = module.build(build_clip(ARCH, PX), options, NUM_SEGMENTS)
    fill(method)
    torch.nn.init.constant_(method.get_parameter("logit_scale"), math.log(10))
    return method.train()


def clips(size: int, inputs: str = "frames") -> Tensor:
    """uint8 [size, T, 3, PX, PX], or token ids int64 [size, 12]."""
    rng = torch.Generator().manual_seed(1)
    if inputs == "attributes":
        return torch.randint(1, 49408, (size, 12), generator=rng)
    return torch.randint(0, 256, (size, NUM_SEGMENTS, 3, PX, PX), generator=rng).to(torch.uint8)


def class_text() -> ClassText:
    return ClassText(
        token_ids=tokenize(ARCH, CLASS_NAMES, 12)[None],
        class_embeddings=functional.normalize(noise(3, 1, len(CLASS_NAMES), 128), dim=-1),
        class_names=CLASS_NAMES,
        token_embeddings=noise(4, len(CLASS_NAMES), 12, 128),
    )


def step_gradients(
    case: str,
    size: int,
    micro_batch: int,
    *,
    method: Method | None = None,
    device: torch.device = CPU,
    precision: str = "fp32",
    scale: float = 0.0,
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a step of `size` clips in micro-batches; with a scale, times it."""
    method = (method or make_method(case)).to(device)
    text = class_text().to(device)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale or 1.0, enabled=bool(scale))
    step = StepGradients(method, text, device=device, precision=precision, scaler=scaler)
    parts, inputs = micro_batches(size, micro_batch), clips(size, method.inputs)
    loss = step.add(torch.tensor(LABELS[:size]), parts, (inputs[part.places] for part in parts))
    return float(loss), {n: p.grad for n, p in method.named_parameters() if p.grad is not None}


def main(path: Path) -> None:
    start("cpu")
    torch.set_num_threads(1)
    found = {}
    for case in CASES:
        for size, micro_batch in STEPS:
            loss, gradients = step_gradients(case, size, micro_batch)
            sums = {name: float(g.double().abs().sum()) for name, g in gradients.items()}
            found[case, size, micro_batch] = gather_objects((loss, sums))
            if rank() == 0:
                found[case, size, micro_batch].append(gradients)
    if rank() == 0:
        torch.save(found, path / "gradients.pt")
    dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
