"""Open-VCLIP: the kinds `openvclip` and `openvclip-*`."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.clips.windows import Windows
from clipzoo.config import AugmentConfig, TrainConfig
from clipzoo.methods.openvclip import OpenVclip, Options, video_logits
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.models.pixels import PIXELS
from clipzoo.models.text import ClassText
from clipzoo.train.dealing import micro_batches
from clipzoo.train.gradients import StepGradients
from clipzoo.train.optim import make_optimizer
from clipzoo.train.raw_clip import Interpolation
from parity.data import moving_waves, probed
from parity.inputs import Case, class_text, fill, noise, parameter
from parity.model import build_towers


def options(**changes: object) -> Options:
    """Options of Open-VCLIP with the authors' values, except for `changes`."""
    values = {"attention": "neighbors", "windows": "pyav", "window_stride": 16, "window_fps": 30.0}
    return Options.model_validate({**values, **changes})


def trained_parameter(name: str, raw: Tensor) -> Tensor:
    """The golden value of a tensor after training, which leaves the text tower as it was."""
    if name == "logit_scale":
        return torch.tensor(4.25)
    return parameter(f"trained.{name}", raw.shape) if name.startswith("visual.") else raw


def openvclip(
    *,
    clip: Case,
    num_segments: int,
    batch: int,
    views: int,
    input_seed: int,
    class_names: list[str],
    templates: list[str],
    labels: list[int],
    raw_clip_share: float = 0.0,
) -> Case:
    """A whole model on noise: frames and class names in, logits, loss and gradients out.

    Args:
        clip: sizes of the towers.
        num_segments: T.
        batch: B videos.
        views: V clips of each.
        input_seed: of the normalized frames [B V, T, 3, S, S].
        class_names: K names.
        templates: P prompts; {} is the name.
        labels: B class ids.
        raw_clip_share: 0, or the share of CLIP in the parameters; the rest is trained.
    """
    towers = build_towers(clip).eval()
    fill(towers)
    text = _class_text(towers, class_names, templates, clip["context_length"])
    shapes = {f"model.{name}": list(value.shape) for name, value in towers.state_dict().items()}
    model = OpenVclip(towers, options(), num_segments)
    if raw_clip_share:
        _mix(model, raw_clip_share)
    size = clip["image_resolution"]
    pixels = noise(input_seed, batch * views, num_segments, 3, size, size)
    with torch.no_grad():
        frames = frame_embeddings(model.visual, pixels).flatten(0, 1)  # [B V T, D]
    features = model.video_embeddings(pixels)  # [B V, D]
    class_ids = torch.tensor(labels).repeat_interleave(views)  # [B] -> [B V]
    loss = model.loss(features, Batch(labels=class_ids, texts=class_ids), text)
    loss.backward()
    logits = video_logits(features.detach(), text)  # [B V, K]
    by_view = features.detach().unflatten(0, (batch, views))  # [B V, D] -> [B, V, D]
    # `score` is the softmax of the mean, which leaves open what all classes have in common.
    mean = model.score(by_view, text).log()  # [B, K]
    mean = mean + (logits.unflatten(0, (batch, views)).mean(1) - mean).mean(-1, keepdim=True)
    return {
        "class_embeddings": text.ensemble(),
        "frame_embeddings": frames,
        "logits": logits,
        "summed_logits": mean * views,
        "loss": loss,
        "grad_norms": {k: p.grad.norm() for k, p in model.named_parameters() if p.grad is not None},
        "checkpoint_shapes": shapes,
    }


@torch.no_grad()
def _class_text(
    towers: nn.Module, class_names: list[str], templates: list[str], length: int
) -> ClassText:
    """The class text of filled towers, [P, K, D]."""
    prompts = [template.format(name) for template in templates for name in class_names]
    tokens = SimpleTokenizer(context_length=length)(prompts)  # [P K, L]
    shape = (len(templates), len(class_names))
    embeddings: Tensor = towers.encode_text(tokens, normalize=True)  # pyright: ignore[reportCallIssue]
    return ClassText(
        token_ids=tokens.unflatten(0, shape),  # [P K, L] -> [P, K, L]
        class_embeddings=embeddings.unflatten(0, shape),  # [P K, D] -> [P, K, D]
        class_names=class_names,
    )


def _mix(model: OpenVclip, raw_clip_share: float) -> None:
    """Give a filled model the weights of a test: those of a training, mixed with its own."""
    for name, raw in model.state_dict().items():
        raw.copy_(raw_clip_share * raw + (1 - raw_clip_share) * trained_parameter(name, raw))


def windows(
    *,
    reader: str,
    num_frames: int,
    fps: float,
    num_segments: int,
    num_clips: int,
    window_stride: int,
    window_fps: float,
) -> Case:
    """The frames of the clips of a video.

    Args:
        reader: `pyav`, `pyav_avi` or `torchvision`.
        num_frames: n.
        fps: frames a second of the video.
        num_segments: T.
        num_clips: V.
        window_stride, window_fps: as in `Options`.
    """
    made = options(windows=reader, window_stride=window_stride, window_fps=window_fps)
    sampler = Windows(made.windows, made.window_stride, made.window_fps)
    return {"indices": sampler.test(num_frames, fps, num_segments, num_clips)}  # [V, T]


class _Draws:
    """In the place of a clip's generator: draws that are given."""

    def __init__(self, short_side: float, places: list[int], flip: bool) -> None:
        self._short_side, self._places = short_side, iter(places)
        # A flip happens below its probability; color jitter draws nothing, and gray never happens.
        self._random = iter([0.0 if flip else 0.99, 0.99])

    def uniform(self, low: float, high: float) -> float:
        assert low <= self._short_side <= high
        return self._short_side

    def integers(self, end: int) -> int:
        place = next(self._places)
        assert place < end
        return place

    def random(self) -> float:
        return next(self._random)


def train_pixels(
    *,
    frame_seed: int,
    width: int,
    height: int,
    num_frames: int,
    short_side_px: int,
    size: int,
    short_side_draw: float,
    places: list[int],
    flip: bool,
    probe_yx: list[list[int]],
) -> Case:
    """A clip of waves after Open-VCLIP's augmentation: means, and single pixels, in 0 .. 255.

    Args:
        frame_seed: of frame 0; frame i has frame_seed + i.
        width: of the frames (px), as is height.
        height: see width.
        num_frames: T.
        short_side_px: lower end of the random short side.
        size: of the clip.
        short_side_draw: the short side that is drawn, not rounded.
        places: of the window, what is drawn of y and x.
        flip: whether the clip is flipped.
        probe_yx: places of the pixels.
    """
    augment = AugmentConfig.model_construct(
        randaugment_n=0,
        short_side_px=short_side_px,
        crop="random_short_side",
        flip=0.5,
        color_jitter=0.0,
        grayscale=0.0,
    )
    rng = cast(np.random.Generator, _Draws(short_side_draw, places, flip))
    transform = TrainTransform(size, augment, PIXELS["openai-linear"])
    clip = transform(moving_waves(frame_seed, width, height, num_frames), rng)
    return probed(clip, probe_yx)


def view_pixels(
    *,
    frame_seed: int,
    width: int,
    height: int,
    num_frames: int,
    short_side_px: int,
    size: int,
    probe_yx: list[list[int]],
) -> Case:
    """The center crop of a clip of waves; arguments and outputs are those of `train_pixels`."""
    transform = ViewTransform(size, short_side_px, 1, PIXELS["openai-linear"])
    clip = transform(moving_waves(frame_seed, width, height, num_frames))[0]  # [1, T, ...]
    return probed(clip, probe_yx)


@dataclass(frozen=True, kw_only=True)
class _Given(Interpolation):
    """An interpolation whose shares of the raw CLIP are given."""

    alphas: list[float]

    def alpha(self, step: int) -> float:
        return self.alphas[step]


def _trained_model(clip: Case, num_segments: int) -> tuple[OpenVclip, dict[str, Tensor]]:
    """A model of normalized frames after training, and the raw CLIP's values of its parameters."""
    towers = build_towers(clip)
    fill(towers)
    raw = {name: value.clone() for name, value in towers.state_dict().items()}
    model = OpenVclip(towers, options(), num_segments).train()
    _mix(model, 0.0)
    model.shift.zero_()
    model.scale.fill_(1.0)
    return model, {name: raw[name] for name, _ in model.named_parameters()}


def _optimizer(model: OpenVclip, lr: float, weight_decay: float) -> torch.optim.AdamW:
    values = {"lr": lr, "weight_decay": weight_decay, "decay_vectors": False, "fused": False}
    values |= {"tower_lr_ratio": 1.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    return make_optimizer(model, TrainConfig.model_construct(**values))


def steps(
    *,
    clip: Case,
    num_segments: int,
    batch: int,
    input_seeds: list[int],
    text_seed: int,
    num_classes: int,
    labels: list[list[int]],
    alphas: list[float],
    loss_weight: float,
    lr: float,
    weight_decay: float,
    grad_clip: float,
) -> Case:
    """Optimizer steps with a second gradient at weights between CLIP's and the trained ones.

    Args:
        clip: sizes of the towers.
        num_segments: T.
        batch: B clips in a step.
        input_seeds: of the normalized frames [B, T, 3, S, S] of each step.
        text_seed: of the class embeddings.
        num_classes: K.
        labels: B class ids of each step.
        alphas: the share of CLIP in the weights in between, of each step.
        loss_weight: of the loss there.
        lr: of every parameter.
        weight_decay: of AdamW.
        grad_clip: the largest norm of the gradient.
    """
    model, raw = _trained_model(clip, num_segments)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    text = class_text(functional.normalize(noise(text_seed, num_classes, clip["embed_dim"]))[None])
    given = _Given(model=model, raw=raw, loss_weight=loss_weight, share=1, seed=0, alphas=alphas)
    optimizer = _optimizer(model, lr, weight_decay)
    step = StepGradients(
        model,
        text,
        device=torch.device("cpu"),
        precision="fp32",
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        interpolation=given,
    )
    losses, norms = [], {}
    for number, seed in enumerate(input_seeds):
        frames = noise(seed, batch, num_segments, 3, *2 * [clip["image_resolution"]])
        optimizer.zero_grad()
        parts = micro_batches(batch, batch)
        loss = step.add(torch.tensor(labels[number]), parts, [frames], step=number)
        norms = norms or {n: cast(Tensor, v.grad).norm() for n, v in model.named_parameters()}
        total = nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        losses.append([float(loss), float(total)])
    return {
        "losses": losses,
        "grad_norms": norms,
        "change_norms": {n: (model.get_parameter(n) - v).norm() for n, v in start.items()},
        "logit_scale": model.logit_scale,
    }
