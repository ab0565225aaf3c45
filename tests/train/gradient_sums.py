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

from clipzoo.config import AugmentConfig
from clipzoo.methods import METHODS, vificlip
from clipzoo.methods.parts.losses import soft_cross_entropy
from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.parts.similarity import scaled_cosines
from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.clip import build_clip
from clipzoo.models.text import ClassText, tokenize
from clipzoo.runtime.distributed import gather_objects, rank, start
from clipzoo.train.dealing import micro_batches
from clipzoo.train.gradients import StepGradients
from clipzoo.train.raw_clip import Interpolation
from parity.inputs import fill, noise
from parity.model import actionclip_options, bike_options
from parity.mote import mote_options
from parity.openvclip import options as openvclip_options
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
    "mote": mote_options(head_layers=2, draw_group=3),  # of 8 clips: three groups
    "actionclip-dropout": actionclip_options(head="Transf_cls", head_layers=1, text_tower="frozen"),
    "mixed": text4vis_options(head_layers=1, loss="infonce", text_tower="trained"),
    "vificlip": vificlip.Options(trained="both", test_sampler="midpoints"),
    "vificlip-text": vificlip.Options(trained="text", test_sampler="midpoints"),
    "interpolated": text4vis_options(head_layers=1),
    "interpolated-mixed": text4vis_options(head_layers=1, loss="infonce", text_tower="trained"),
    "interpolated-openvclip": openvclip_options(),
    "interpolated-infonce": text4vis_options(head_layers=1, loss="infonce"),
}
TRAINED_TEXT = ("infonce-trained", "actionclip", "mixed", "interpolated-mixed")
TRAINED_TEXT += ("vificlip", "vificlip-text")
MIXED = AugmentConfig.model_construct(
    mixup_alpha=0.8, cutmix_alpha=1.0, mix_group=2, label_smoothing=0.1
)
SEED, STEP = 7, 3
"""Of the run and of the step: its groups draw mixup and CutMix, with themselves and each other."""
BUILDERS = {spec.options: spec.build for spec in METHODS.values()}
CPU = torch.device("cpu")
STEPS = [(8, 2), (3, 2), (3, 1)]
"""(clips of a step, clips of a micro-batch); of 3 clips, some of 4 processes have none."""


class SoftTargets(Text4Vis):
    """Cross entropy with soft targets over the classes of a trained text tower."""

    takes_soft_targets = True

    def __init__(self, towers: Any, options: Any, num_segments: int) -> None:
        super().__init__(towers, options, num_segments)
        self.compares_videos = False

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        assert batch.targets is not None
        scale = self.logit_scale.float().exp()
        return soft_cross_entropy(
            scaled_cosines(features, text.class_embeddings, scale), batch.targets
        )


def make_method(case: str) -> Method:
    return copy.deepcopy(_method(case))


@functools.cache
def _method(case: str) -> Method:
    options: Any = CASES[case]
    soft = case in ("mixed", "interpolated-mixed")
    build = SoftTargets if soft else BUILDERS[type(options)]
    method = build(build_clip(ARCH, PX), options, NUM_SEGMENTS)
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


def interpolation(method: Method) -> Interpolation:
    """Of the vision tower and logit_scale with some other weights."""
    raw = {
        name: 0.5 * noise(i, *value.shape).to(value.device)
        if name.startswith("visual.")
        else value.detach() - 1
        for i, (name, value) in enumerate(method.named_parameters())
        if name.startswith(("visual.", "logit_scale"))
    }
    return Interpolation(model=method, raw=raw, loss_weight=0.5, share=0.6, seed=SEED)


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
    step = StepGradients(
        method,
        text,
        device=device,
        precision=precision,
        scaler=scaler,
        seed=SEED,
        mixing=MIXED if case.endswith("mixed") else None,
        interpolation=interpolation(method) if case.startswith("interpolated") else None,
    )
    parts = micro_batches(size, micro_batch, 2 if case.endswith("mixed") else 1)
    inputs = clips(size, sentences=case == "attributes")
    labels, templates = torch.tensor(LABELS[:size]), torch.tensor(TEMPLATES[:size])
    drawn = templates if method.draws_templates else None
    loss = step.add(labels, parts, (inputs[part.places] for part in parts), drawn, step=STEP)
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
