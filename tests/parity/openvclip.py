"""Open-VCLIP: the kinds `openvclip` and `openvclip-windows`."""

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from clipzoo.clips.windows import Windows
from clipzoo.methods.openvclip import OpenVclip, Options, video_logits
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.models.text import ClassText
from parity.inputs import Case, fill, noise, parameter
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
