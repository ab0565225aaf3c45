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

from clipzoo.methods import METHODS
from clipzoo.methods.parts.method import Method
from clipzoo.models.clip import build_clip
from clipzoo.models.text import ClassText, tokenize
from clipzoo.runtime.distributed import gather_objects, rank, start
from clipzoo.train.gradients import StepGradients, micro_batches
from parity.inputs import fill, noise
from parity.model import actionclip_options, bike_options
from tiny import attributes_options, text4vis_options

ARCH, PX, NUM_SEGMENTS = "ViT-demo-16", 32, 2
CLASS_NAMES = ["a dog", "a cat", "two red fish", "an owl"]
LABELS = [2, 0, 0, 1, 2, 2, 1, 0]
TEMPLATES = [0, 1, 1, 0, 0, 1, 1, 0]
"""Drawn for each clip, where a method draws them: clips 1 and 2 have the same prompt."""
CASES = {
    "ce": text4vis_options(head_layers=1),
    "infonce": text4vis_options(head_layers=1, loss="infonce"),
    "infonce-trained": text4vis_options(head_layers=1, loss="infonce", text_tower="trained"),
    "vcs": bike_options(head_layers=1),
    "attributes": attributes_options(),
    "dp-ds": bike_options(head="None", interaction="DP", loss="ds"),
    "actionclip": actionclip_options(head="LSTM"),
    "actionclip-dropout": actionclip_options(head="Transf_cls", head_layers=1, text_tower="frozen"),
}
TRAINED_TEXT = ("infonce-trained", "actionclip")
BUILDERS = {spec.options: spec.build for spec in METHODS.values()}
CPU = torch.device("cpu")
STEPS = [(8, 2), (3, 2), (3, 1)]
"""(clips of a step, clips of a micro-batch); of 3 clips, some of 4 processes have none."""


def make_method(case: str) -> Method:
    return copy.deepcopy(_method(case))


@functools.cache
def _method(case: str) -> Method:
    options: Any = CASES[case]
    method = BUILDERS[type(options)](build_clip(ARCH, PX), options, NUM_SEGMENTS)
    fill(method)
    torch.nn.init.constant_(method.get_parameter("logit_scale"), math.log(10))
    return method.train()


def clips(size: int, *, sentences: bool = False) -> Tensor:
    """uint8 [size, T, 3, PX, PX], or token ids int64 [size, 12]."""
    rng = torch.Generator().manual_seed(1)
    if sentences:
        return torch.randint(1, 49408, (size, 12), generator=rng)
    return torch.randint(0, 256, (size, NUM_SEGMENTS, 3, PX, PX), generator=rng).to(torch.uint8)


@functools.cache
def token_ids(*texts: str) -> Tensor:
    """Of texts, [N, 12] int64."""
    return tokenize(ARCH, list(texts), 12)


def class_text(num_templates: int = 1) -> ClassText:
    texts = [t.format(n) for t in ("{}", "a photo of {}")[:num_templates] for n in CLASS_NAMES]
    shape = (num_templates, len(CLASS_NAMES))
    return ClassText(
        token_ids=token_ids(*texts).unflatten(0, shape),
        class_embeddings=functional.normalize(noise(3, *shape, 128), dim=-1),
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
    text = class_text(2 if method.draws_templates else 1).to(device)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale or 1.0, enabled=bool(scale))
    step = StepGradients(method, text, device=device, precision=precision, scaler=scaler)
    parts, inputs = micro_batches(size, micro_batch), clips(size, sentences=case == "attributes")
    labels, templates = torch.tensor(LABELS[:size]), torch.tensor(TEMPLATES[:size])
    drawn = templates if method.draws_templates else None
    loss = step.add(labels, parts, (inputs[part.places] for part in parts), drawn)
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
