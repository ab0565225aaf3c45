"""MoTE: whole models on noise, in evaluation and in training."""

from dataclasses import replace
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn import functional

from clipzoo.methods.mote import Draws, Mote, Options, merge_shares, modulation
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.models.text import ClassText
from clipzoo.yaml_files import read_yaml
from parity.inputs import Case, class_text, fill, noise
from parity.model import build_towers
from tiny import PARAMS


def mote_options(**changes: object) -> Options:
    """The options of params.yaml, those of the paper, except for `changes`."""
    values: dict[str, Any] = read_yaml(PARAMS)["mote"]  # pyright: ignore[reportIndexIssue]
    return Options.model_validate({**values, **changes})


def templates() -> list[str]:
    """The 28 prompts of the recipes."""
    recipe: Any = read_yaml(PARAMS.parent / "recipes/mote/base.yaml")
    return recipe["params"]["text"]["templates"]


@torch.no_grad()
def embed(towers: CLIP, names: list[str], context_length: int) -> ClassText:
    """The class text of the recipes' prompts, by the raw CLIP."""
    tokenizer = SimpleTokenizer(context_length=context_length)
    prompts = [template.format(name) for template in templates() for name in names]
    tokens = tokenizer(prompts).unflatten(0, (-1, len(names)))  # [P K, L] -> [P, K, L]
    rows = functional.normalize(towers.encode_text(tokens.flatten(0, 1)), dim=-1)  # [P K, D]
    text = class_text(rows.unflatten(0, tokens.shape[:2]))  # [P, K, D]
    return replace(text, token_ids=tokens)


def build_trained(
    clip: Case, options: Options, num_segments: int, trained_class_names: list[str]
) -> tuple[Mote, CLIP]:
    """A model with its golden parameters, and the raw CLIP, with others."""
    raw, towers = build_towers(clip).eval(), build_towers(clip)
    fill(raw, "raw.")
    fill(towers)
    model = Mote(towers, options, num_segments)
    fill(model.fusion_model, "fusion_model.")
    model.start_training(embed(raw, trained_class_names, clip["context_length"]))
    return model, raw


def mixed(model: Mote, raw: CLIP, share: float) -> None:
    """Put a share of the raw CLIP into the vision tower and logit_scale, in place."""
    for name, value in model.state_dict().items():
        if name.startswith("visual.") or name == "logit_scale":
            value.copy_((1 - share) * value + share * raw.state_dict()[name])


def frames_of(seed: int, clips: int, num_segments: int, size: int) -> Tensor:
    """Noise as normalized frames [clips, T, 3, S, S]."""
    frames = noise(seed, clips * num_segments, 3, size, size)  # [clips T, 3, S, S]
    return frames.unflatten(0, (clips, -1))  # [clips T, ...] -> [clips, T, 3, S, S]


@torch.no_grad()
def evaluation(
    *,
    clip: Case,
    num_segments: int,
    num_videos: int,
    num_views: int,
    input_seed: int,
    head_layers: int,
    num_experts: int,
    class_names: list[str],
    trained_class_names: list[str],
    raw_clip_share: float,
) -> Case:
    """A trained model on the classes of another dataset.

    Args:
        clip: sizes of the towers; the raw CLIP's parameters have names with the prefix `raw.`.
        num_segments: T.
        num_videos: N.
        num_views: V views of each.
        input_seed: of the normalized frames [N V T, 3, S, S].
        head_layers, num_experts: as the options.
        class_names: K names.
        trained_class_names: those of the training.
        raw_clip_share: of the raw CLIP in the vision tower and logit_scale.
    """
    options = mote_options(head_layers=head_layers, num_experts=num_experts)
    model, raw = build_trained(clip, options, num_segments, trained_class_names)
    mixed(model.eval(), raw, raw_clip_share)
    text = embed(raw, class_names, clip["context_length"])
    pixels = frames_of(input_seed, num_videos * num_views, num_segments, clip["image_resolution"])
    features = model.features(frame_embeddings(model.visual, pixels))  # [N V, 2 + n, D]
    share = modulation(features[:, 0], features[:, 2:], text.ensemble(), options)  # [N V, 1]
    views = features.unflatten(0, (num_videos, num_views))  # [N V, ...] -> [N, V, 2 + n, D]
    by_view = model.score(views, text)  # [N, K]
    model.options = mote_options(view_fusion="cosines")
    return {
        "class_embeddings": text.ensemble(),
        "trained_embeddings": model.fusion_model.spe_cls_feature,
        "modulation": share.flatten(),  # [N V, 1] -> [N V]
        "cosines": model.similarity(views, text).flatten(0, 1),  # [N, V, K] -> [N V, K]
        "twice": by_view.softmax(dim=-1),  # the authors' second softmax
        "by_cosines": model.score(views, text),
        "checkpoint_shapes": {k: list(v.shape) for k, v in model.state_dict().items()},
    }


def training(
    *,
    clip: Case,
    num_segments: int,
    num_videos: int,
    input_seed: int,
    head_layers: int,
    num_experts: int,
    trained_class_names: list[str],
    labels: list[int],
    experts: list[int],
    temperatures: list[float | str],
) -> Case:
    """The losses of a step and the norms of their gradients.

    Args:
        clip, num_segments, num_videos, input_seed, head_layers, num_experts, trained_class_names:
            as for `evaluation`.
        labels: N class ids.
        experts: that of each block, from 0.
        temperatures: that of each block; `inf` = equal shares.
    """
    options = mote_options(head_layers=head_layers, num_experts=num_experts)
    model, raw = build_trained(clip, options, num_segments, trained_class_names)
    text = embed(raw, trained_class_names, clip["context_length"])
    shares = [merge_shares(float(temperature), num_experts) for temperature in temperatures]
    pixels = frames_of(input_seed, num_videos, num_segments, clip["image_resolution"])
    frames = frame_embeddings(model.train().visual, pixels)  # [N, T, D]
    features = model.training_features(frames, Draws(experts=experts, shares=shares))  # [N, 3, D]
    class_ids = torch.tensor(labels)  # [N]
    batch = Batch(labels=class_ids, texts=class_ids)
    drawn, merged, square = model.losses(features, batch, text)
    loss = model.loss(features, batch, text)
    loss.backward()
    unit = functional.normalize(features[:, :2], dim=-1) @ text.ensemble().T  # [N, 2, K]
    return {
        "cosines": unit[:, 0],
        "merged_cosines": unit[:, 1],
        "mean_square": square,
        "loss_drawn": drawn,
        "loss_merged": merged,
        "loss": loss,
        "grad_norms": {k: p.grad.norm() for k, p in model.named_parameters() if p.grad is not None},
    }
