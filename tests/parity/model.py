"""Models: the kinds `text4vis` and `bike`; BIKE's attribute head; ActionCLIP's heads and loss."""

from dataclasses import replace

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn import functional

from clipzoo.methods.actionclip import Options as ActionClipOptions
from clipzoo.methods.bike import LOSSES, Bike
from clipzoo.methods.bike import Options as BikeOptions
from clipzoo.methods.bike_attributes import AttributeHead
from clipzoo.methods.parts.actionclip_heads import video_head
from clipzoo.methods.parts.heads import HEAD_WIDTH, POSITIONS
from clipzoo.methods.parts.losses import nce_loss, one_direction
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.methods.parts.similarity import scaled_cosines
from clipzoo.methods.text4vis import Options, Text4Vis
from clipzoo.models.text import embed_tokens
from parity.inputs import Case, class_text, fill, noise, parameter

TOKENS_SHOWN = 12
"""Token ids of each prompt that golden files hold."""


def build_towers(clip: Case, quick_gelu: bool = True) -> CLIP:
    """An open_clip model with the sizes of a case's `clip`, in OpenAI's names."""
    layers = clip["vision_layers"]
    vision = {
        "image_size": clip["image_resolution"],
        "layers": layers if isinstance(layers, int) else list(layers),
        "width": clip["vision_width"],
        "patch_size": clip["vision_patch_size"],
    }
    text = {
        "context_length": clip["context_length"],
        "vocab_size": clip["vocab_size"],
        "width": clip["transformer_width"],
        "heads": clip["transformer_heads"],
        "layers": clip["transformer_layers"],
    }
    return CLIP(clip["embed_dim"], vision, text, quick_gelu=quick_gelu)  # pyright: ignore[reportArgumentType]


def build_filled(towers: CLIP, options: Case, num_segments: int) -> Text4Vis:
    """A Text4Vis model on `towers`, both with their golden parameters.

    Args:
        towers: of `build_towers`; its vision tower becomes that of the model.
        options: head, temporal_module and joint.
        num_segments: T.
    """
    others = {"head_layers": 6, "loss": "ce", "text_tower": "frozen"}
    model = Text4Vis(towers, Options.model_validate({**options, **others}), num_segments)
    towers.add_module("visual", model.visual)  # joint space-time is a tower of its own
    fill(towers)
    fill(model.fusion_model, "fusion_model.")
    model.logit_scale.data = parameter("logit_scale", model.logit_scale.shape)
    return model


def text4vis(
    *,
    clip: Case,
    num_segments: int,
    batch: int,
    input_seed: int,
    head: str,
    class_names: list[str],
    template: str,
    labels: list[int],
    temporal_module: str | None = "none",
    joint: bool = False,
    batch_statistics: bool = False,
    quick_gelu: bool = True,
) -> Case:
    """A whole Text4Vis model on noise: frames and class names in, gradients out.

    Args:
        clip: sizes of the towers.
        num_segments: T.
        batch: B videos.
        input_seed: of the normalized frames [B T, 3, S, S].
        head: `Transf` or `None`.
        class_names: K names.
        template: the prompt; {} is the name.
        labels: B class ids.
        temporal_module: `none` (or null), `tsm`, `tokenshift` or `tokent1d`.
        joint: joint space-time attention.
        batch_statistics: whether embeddings, logits and loss are computed in training mode, as
            gradients always are; this matters only with BatchNorm (ResNet towers).
        quick_gelu: the activation; with False, the numbers must differ.
    """
    towers = build_towers(clip, quick_gelu)
    options = {"head": head, "temporal_module": temporal_module or "none", "joint": joint}
    model = build_filled(towers, options, num_segments)
    model.train(batch_statistics)
    size = clip["image_resolution"]
    frames = noise(input_seed, batch * num_segments, 3, size, size)  # [B T, 3, S, S]
    frames = frames.unflatten(0, (batch, -1))  # [B T, 3, S, S] -> [B, T, 3, S, S]
    prompts = [template.format(name) for name in class_names]
    tokens = SimpleTokenizer(context_length=clip["context_length"])(prompts)
    with torch.no_grad():
        text = towers.encode_text(tokens)  # [K, L] -> [K, D]
        by_frame = frame_embeddings(model.visual, frames).flatten(0, 1)  # [B, T, D] -> [B T, D]
        video = model.video_embeddings(frames)  # [B, D]
        logits = model.logits(video, text)  # [B, K]
        loss = cross_entropy(model, video, labels, text)
    return {
        "tokens": tokens,
        "text_embeddings": text,
        "frame_embeddings": by_frame,
        "video_embeddings": video,
        "logits": logits,
        "loss": loss,
        **gradient_norms(model, frames, labels, text),
        "checkpoint_shapes": {k: list(v.shape) for k, v in model.state_dict().items()},
        "clip_shapes": {k: list(v.shape) for k, v in towers.state_dict().items()},
    }


def bike(
    *,
    clip: Case,
    num_segments: int,
    batch: int,
    input_seed: int,
    head: str,
    interaction: str,
    class_names: list[str],
    template: str,
    labels: list[int],
) -> Case:
    """The video branch of BIKE on noise: frames and class names in, losses out.

    Args:
        clip, num_segments, batch, input_seed, head, class_names, template, labels: as for
            `text4vis`.
        interaction: `VCS` or `DP`.
    """
    towers = build_towers(clip).eval()
    fill(towers)
    model = Bike(towers, bike_options(head=head, interaction=interaction), num_segments).eval()
    fill(model.fusion_model, "fusion_model.")
    size = clip["image_resolution"]
    frames = noise(input_seed, batch * num_segments, 3, size, size)  # [B T, 3, S, S]
    frames = frames.unflatten(0, (batch, -1))  # [B T, 3, S, S] -> [B, T, 3, S, S]
    prompts = [template.format(name) for name in class_names]
    tokens = SimpleTokenizer(context_length=clip["context_length"])(prompts)
    class_ids = torch.tensor(labels)  # [B]
    with torch.no_grad():
        sentences = towers.encode_text(tokens)  # [K, L] -> [K, D]
        unit = functional.normalize(sentences, dim=-1)[None]  # [K, D] -> [1, K, D]
        text = replace(class_text(unit), token_ids=tokens[None])  # [K, L] -> [1, K, L]
        text = replace(text, token_embeddings=embed_tokens(towers, text))  # [K, L, D]
        features = model.video(frames)  # [B, T, D] or [B, D]
        similarity = model.cosines(features, text)  # [B, K]
        logits = model.logit_scale.exp() * similarity[:, class_ids]  # [B, K] -> [B, B]
        losses = {name: loss(logits, class_ids) for name, loss in LOSSES.items()}
        losses["nce"] = model.loss(features, Batch(labels=class_ids, texts=class_ids), text)
    assert text.token_embeddings is not None
    return {
        "tokens": tokens[:, :TOKENS_SHOWN],
        "cls_embeddings": sentences,
        "token_embedding_shape": list(text.token_embeddings.shape),
        "token_embeddings_first8": text.token_embeddings[:, :8],
        "similarity": similarity,
        "batch_logits": logits,
        "losses": losses,
        "fusion_shapes": {k: list(v.shape) for k, v in model.fusion_model.state_dict().items()},
    }


def bike_options(**changes: object) -> BikeOptions:
    """Options of BIKE's video branch with the authors' values, except for `changes`."""
    values: dict[str, object] = {"head": "Transf", "head_layers": 6, "interaction": "VCS"}
    values |= {"temperature": 0.01, "loss": "nce", "train_sampler": "inclusive"}
    values |= {"val_min_frames": 8, "zero_shot_scoring": "head", "saliency": False}
    values |= {"authors_map_softmaxes": 2, "authors_running_map_batch": 0, "score_training": False}
    return BikeOptions.model_validate({**values, **changes})


def cross_entropy(model: Text4Vis, video: Tensor, labels: list[int], text: Tensor) -> Tensor:
    """The training loss of video embeddings [B, D] against text embeddings [K, D]."""
    class_ids = torch.tensor(labels)  # [B]
    batch = Batch(labels=class_ids, texts=class_ids)
    return model.loss(video, batch, class_text(text[None]))  # text [K, D] -> [1, K, D]


def gradient_norms(model: Text4Vis, frames: Tensor, labels: list[int], text: Tensor) -> Case:
    """L2 norms of the loss's gradients in training mode: of each parameter and of all."""
    model.train()
    cross_entropy(model, model.video_embeddings(frames), labels, text).backward()
    norms = {k: p.grad.norm() for k, p in model.named_parameters() if p.grad is not None}
    return {"grad_norms": norms, "grad_norm_total": torch.stack(list(norms.values())).norm()}


@torch.no_grad()
def bike_attribute_head(
    *,
    query_seed: int,
    query_shape: list[int],
    sentence_seed: int,
    sentence_shape: list[int],
) -> Case:
    """BIKE's attribute head on noise, which is not normalized.

    Args:
        query_seed: of the class embeddings.
        query_shape: [K, D].
        sentence_seed: of the sentence embeddings.
        sentence_shape: [B, D].
    """
    head = AttributeHead(query_shape[-1])
    fill(head, "sentence_head.")
    queries = head.query_fc(noise(query_seed, *query_shape))  # [K, D]
    sentences = head.sentence_fc(noise(sentence_seed, *sentence_shape))  # [B, D]
    return {
        "similarity": scaled_cosines(sentences, queries, 1.0),  # [B, K]
        "shapes": {name: list(value.shape) for name, value in head.state_dict().items()},
    }


@torch.no_grad()
def actionclip_head(
    *,
    head: str,
    num_segments: int,
    input_seed: int,
    input_shape: list[int],
    head_layers: int = 6,
    heads: int | None = None,
) -> Case:
    """A head of ActionCLIP on noise in place of frame embeddings.

    Args:
        head: `meanP`, `Conv_1D`, `LSTM`, `Transf` or `Transf_cls`.
        num_segments: T.
        input_seed: of the frame embeddings.
        input_shape: [B, T, D].
        head_layers: of the Transformers.
        heads: attention heads of Transf; as many as a text tower of width D has if None.
    """
    width = input_shape[-1]
    model = video_head(
        head,
        width=width,
        heads=width // HEAD_WIDTH if heads is None else heads,
        layers=head_layers,
        positions=POSITIONS,
        num_segments=num_segments,
    ).eval()
    fill(model, "fusion_model.")
    return {
        "output": model(noise(input_seed, *input_shape)),  # [B, T, D] -> [B, D]
        "shapes": {name: list(value.shape) for name, value in model.state_dict().items()},
    }


def actionclip_loss(
    *, image_seed: int, text_seed: int, shape: list[int], labels: list[int], logit_scale: float
) -> Case:
    """ActionCLIP's loss of noise in place of the embeddings of a batch, and of each direction.

    Args:
        image_seed: of the video embeddings.
        text_seed: of the text embeddings.
        shape: [B, D] of both.
        labels: B class ids.
        logit_scale: by which cosines are multiplied (not its logarithm).
    """
    class_ids = torch.tensor(labels)  # [B]
    videos, texts = noise(image_seed, *shape), noise(text_seed, *shape)
    logits = scaled_cosines(videos, texts, logit_scale)  # [B, B]
    return {
        "loss_image": one_direction(logits, class_ids),
        "loss_text": one_direction(logits.T, class_ids),
        "loss": nce_loss(logits, class_ids),
    }


def actionclip_options(**changes: object) -> ActionClipOptions:
    """Options of ActionCLIP with the authors' values for Kinetics-400, except for `changes`."""
    values: dict[str, object] = {"head": "Transf", "head_layers": 6, "temporal_module": "none"}
    values |= {"joint": False, "text_tower": "trained", "train_sampler": "ticks"}
    values |= {"test_sampler": "centers", "authors_test_batch": 0}
    return ActionClipOptions.model_validate({**values, **changes})
