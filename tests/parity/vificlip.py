"""ViFi-CLIP: the model with its scores, loss and gradients; its samplers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional

from clipzoo.clips import sampling
from clipzoo.config import load_params
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.vificlip import PLACES, TOKEN_EMBEDDING, Options, ViFiClip
from clipzoo.models.pixels import PIXELS, preprocess_config
from clipzoo.train.optim import make_optimizer
from parity.inputs import Case, class_text, fill
from parity.model import TOKENS_SHOWN, build_towers
from tiny import PARAMS


def _filled(clip: Case) -> CLIP:
    """Towers with their golden parameters."""
    towers = build_towers(clip)
    fill(towers)
    return towers


def build_vificlip(clip: Case, trained: str = "both") -> ViFiClip:
    """The method on towers with their golden parameters and ImageNet's mean and std."""
    towers = _filled(clip)
    visual = towers.get_submodule("visual")
    visual.preprocess_cfg = preprocess_config(PIXELS["imagenet-bilinear"])  # pyright: ignore[reportArgumentType]
    options = {"trained": trained, "test_sampler": "midpoints"}
    return ViFiClip(towers, Options.model_validate(options), 0).eval()


def model(
    *,
    clip: Case,
    num_segments: int,
    batch: int,
    num_views: int,
    frame_seed: int,
    class_names: list[str],
    template: str,
    targets: list[list[float]],
) -> Case:
    """The whole model on noise: frames and class names in, scores and gradients out.

    Args:
        clip: sizes of the towers.
        num_segments: T.
        batch: B videos.
        num_views: V views of each.
        frame_seed: of the frames, uint8 [B, V, T, S, S, 3].
        class_names: K names.
        template: the prompt; {} is the name.
        targets: soft ones, [B, K], of the loss of the first view.
    """
    method, size = build_vificlip(clip), clip["image_resolution"]
    shape = (batch, num_views, num_segments, size, size, 3)
    values = np.random.RandomState(frame_seed).randint(0, 256, shape).astype(np.uint8)
    frames = torch.from_numpy(values).movedim(-1, -3)  # [B, V, T, 3, S, S]
    prompts = [template.format(name) for name in class_names]
    tokens = SimpleTokenizer(context_length=clip["context_length"])(prompts)  # [K, L]
    text = class_text(torch.empty(1, len(prompts), clip["embed_dim"]))
    text = method.class_text(replace(text, token_ids=tokens[None]))  # [K, L] -> [1, K, L]
    features = method.encode(frames.flatten(0, 1)).unflatten(0, (batch, -1))  # [B, V, D]
    soft = torch.tensor(targets)  # [B, K]
    columns = soft.argmax(dim=1)  # [B]
    loss = method.loss(features[:, 0], Batch(labels=columns, texts=columns, targets=soft), text)
    loss.backward()
    norms = {k: p.grad.norm() for k, p in method.named_parameters() if p.grad is not None}
    return {
        "tokens": tokens[:, :TOKENS_SHOWN],
        "logits": method.logits(features, text),
        "summed_probabilities": num_views * method.score(features, text),
        "loss": loss,
        "grad_norms": norms,
        "num_trained": {
            trained: sum(p.requires_grad for p in build_vificlip(clip, trained).parameters())
            for trained in ("both", "image", "text")
        },
        "released_shapes": released_shapes(method, len(class_names)),
    }


def released_shapes(method: ViFiClip, num_classes: int) -> dict[str, list[int]]:
    """The shapes in a released file of a model, by the authors' names."""
    tensors = released(method, dict, num_classes)["model"]
    return {name.removeprefix("module."): list(value.shape) for name, value in tensors.items()}


def released(
    method: ViFiClip, node: Callable[..., dict[str, Any]], num_classes: int = 3
) -> dict[str, Any]:
    """The content of a file with a model's tensors, as the authors save it.

    Args:
        method: with a text tower.
        node: makes a part of the authors' configuration from its values, as keywords.
        num_classes: of whose prompts the file has the tokens' embeddings.
    """
    tensors = {}
    for name, value in method.state_dict().items():
        for theirs, ours in PLACES.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        tensors[f"module.{name}"] = value.clone()
    width = tensors.pop(f"module.text_encoder.{TOKEN_EMBEDDING}").shape[1]
    length = method.get_parameter("text.tower.positional_embedding").shape[0]
    prompts = torch.zeros(num_classes, length, width)
    tensors["module.prompt_learner.complete_text_embeddings"] = prompts
    trainer = node(USE="both", PROMPT_MODEL=False)
    return {
        "model": tensors,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 8e-6}]},
        "lr_scheduler": {"t_initial": 2400, "base_values": [8e-6]},
        "max_accuracy": 51.3,
        "epoch": 9,
        "config": node(BASE=[""], AUG=node(MIXUP=0.8), TRAINER=node(ViFi_CLIP=trainer)),
    }


def midpoints(*, num_frames: int, num_segments: int) -> Case:
    """Frame numbers (from 0) of a test with one clip."""
    return {"indices": sampling.sample_midpoints(num_frames, num_segments, 1)[0]}


class _Bound:
    """In the place of a generator: draws the least or the largest of what is allowed."""

    def __init__(self, largest: bool) -> None:
        self.largest = largest

    def integers(self, high: int, size: int) -> np.ndarray:
        return np.full(size, (high - 1) * self.largest)


def tsn(*, num_frames: int, num_segments: int) -> Case:
    """First and last frame number (from 0) that training may draw for each segment."""
    bounds = [
        sampling.sample_tsn(num_frames, num_segments, _Bound(largest))  # pyright: ignore[reportArgumentType]
        for largest in (False, True)
    ]
    return {"ranges": np.stack(bounds, axis=1)}  # [T, 2]


def steps(
    *,
    clip: Case,
    trained: str,
    num_segments: int,
    clips_per_step: int,
    frame_seed: int,
    class_names: list[str],
    template: str,
    labels: list[int],
    smoothing: float,
    weight_decay: float,
    rates: list[float],
) -> Case:
    """Losses of optimizer steps of a training, at given learning rates.

    Args:
        trained: as the option of the method.
        labels: of all clips, step after step.
        rates: one for each step.
        clip, num_segments, frame_seed, class_names, template: as for `model`; the frames of all
            clips are uint8 [N, T, S, S, 3].
    """
    method, size = build_vificlip(clip, trained).train(), clip["image_resolution"]
    settings = load_params(PARAMS).train.model_copy(
        update={"weight_decay": weight_decay, "tower_lr_ratio": 1.0, "beta2": 0.98}
    )
    optimizer = make_optimizer(method, settings)
    shape = (len(labels), num_segments, size, size, 3)
    values = np.random.RandomState(frame_seed).randint(0, 256, shape).astype(np.uint8)
    frames = torch.from_numpy(values).movedim(-1, -3)  # [N, T, 3, S, S]
    prompts = [template.format(name) for name in class_names]
    tokens = SimpleTokenizer(context_length=clip["context_length"])(prompts)  # [K, L]
    raw = functional.normalize(_filled(clip).encode_text(tokens).detach(), dim=-1)
    text = replace(class_text(raw[None]), token_ids=tokens[None])  # [1, K, D], [1, K, L]
    num_classes, losses = len(class_names), []
    for i, rate in enumerate(rates):
        some = slice(i * clips_per_step, (i + 1) * clips_per_step)
        of_step = torch.tensor(labels[some])  # [b]
        one_hot = functional.one_hot(of_step, num_classes).float()
        soft = (1 - smoothing) * one_hot + smoothing / num_classes  # [b, K]
        batch = Batch(labels=of_step, texts=of_step, targets=soft)
        loss = method.loss(method.encode(frames[some]), batch, method.class_text(text))
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses}
