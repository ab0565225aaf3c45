"""Checkpoints that others released: Text4Vis's and OpenAI's files become this project's models.

The architecture is inferred from the tensors' shapes, every tensor's name and shape is checked, and
the towers have QuickGELU, as all models of OpenAI's family.

    Text4Vis   {epoch, model_state_dict: visual.*, fusion_model.*, logit_scale} or the bare tensors,
               names with or without `module.`, float16 or float32
    OpenAI     TorchScript archives, or a state dict of the whole CLIP
"""

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models import archives
from clipzoo.models.clip import check_names, load_strictly
from clipzoo.tensors import WeightsError

HEAD_LAYERS = 6
"""Blocks of the released temporal heads."""
VIT_SIZES = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj")
RESNET_SIZES = (
    "visual.layer1.0.conv1.weight",
    "visual.attnpool.positional_embedding",
    "visual.attnpool.c_proj.weight",
)
"""Tensors whose shapes tell a vision tower's sizes."""
KNOWN_NAMES = (
    *("visual.", "fusion_model.", "logit_scale"),
    *("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection"),
)
PLAIN_VISION = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
"""What the vision section of an OpenAI-style configuration may hold."""


def load_released(
    path: str | Path, *, head_layers: int = HEAD_LAYERS
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a Text4Vis checkpoint of its authors.

    Args:
        path: the file.
        head_layers: blocks that its temporal head must have.

    Returns:
        the state dict of `Text4Vis` (float32, CPU) and what it was read from: arch (None where
        open_clip has no such architecture), input_px, quick_gelu, head, head_layers,
        temporal_module (`tokenshift` has no parameters, so it is reported as `none`), joint,
        num_segments (None unless joint), epoch (None where the file does not say).

    Raises:
        WeightsError: the file cannot be read safely, or tensors are missing, unexpected or of
            another shape; the message names them.
    """
    content = archives.read_file(path)
    if "fusion_model_state_dict" in content:
        raise WeightsError(
            f"{path}: holds a head and a whole CLIP apart (fusion_model_state_dict), as BIKE and "
            "ActionCLIP save them; allowed: Text4Vis's visual.*, fusion_model.* and logit_scale"
        )
    tensors = archives.named_tensors(content, str(path))
    if "text_projection" in tensors:
        raise WeightsError(
            f"{path}: holds a whole CLIP (unexpected text_projection, token_embedding.weight, "
            "...); give it as model.weights, not as model.checkpoint"
        )
    info = {**_infer_method(tensors), "head_layers": head_layers}
    plain = {_without_options(name): value for name, value in tensors.items()}
    config, name = _infer_towers(plain, str(path))
    config["text_cfg"] |= {"layers": 1, "vocab_size": 1}  # asked for its sizes only
    positions = tensors.get("fusion_model.frame_position_embeddings.weight")
    if positions is not None:
        config["text_cfg"]["context_length"] = positions.shape[0]
    with torch.device("meta"):
        model = Text4Vis(
            CLIP(**config, quick_gelu=True),
            head=info["head"],
            num_segments=info["num_segments"] or 1,
            head_layers=head_layers,
            temporal_module=info["temporal_module"],
            joint=info["joint"],
        )
    check_names(model.state_dict(), tensors, str(path))
    size = config["vision_cfg"]["image_size"]
    found = {"arch": name, "input_px": size, "quick_gelu": True, "epoch": content.get("epoch")}
    return tensors, {**found, **info}


def is_openai(path: str | Path) -> bool:
    """Whether a weights file is OpenAI's own: one of their archives, or a state dict of one.

    The archives keep the input size among the parameters, and have float16 convolutions beside a
    float32 logit_scale. Other files in OpenAI's naming (LAION's, say) may have been trained with
    GELU, which their tensors do not tell.
    """
    content = archives.read_file(path)
    mixed = {"visual.conv1.weight": torch.float16, "logit_scale": torch.float32}
    return archives.NOT_WEIGHTS[0] in content or all(
        getattr(content.get(name), "dtype", None) == dtype for name, dtype in mixed.items()
    )


def load_openai(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a whole CLIP in OpenAI's naming: their archives, or a state dict.

    Returns:
        an open_clip model with QuickGELU (float32, CPU, evaluation mode), and its arch (None where
        open_clip has no such architecture), input_px and quick_gelu.

    Raises:
        WeightsError: as `load_released`.
    """
    tensors = archives.named_tensors(archives.read_file(path), str(path))
    tensors = {k: v for k, v in tensors.items() if not k.endswith("attn_mask")}
    config, name = _infer_towers(tensors, str(path))
    model = CLIP(**config, quick_gelu=True)
    load_strictly(model, tensors, str(path))
    size = config["vision_cfg"]["image_size"]
    return model.eval(), {"arch": name, "input_px": size, "quick_gelu": True}


def _infer_method(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Which head and in-network options these names stand for."""
    has_head = any(name.startswith("fusion_model.") for name in tensors)
    time = tensors.get("visual.time_embedding")
    temporal_module = "none"
    if any(".net." in name for name in tensors):
        temporal_module = "tsm"
    elif any(".control_point." in name for name in tensors):
        temporal_module = "tokent1d"
    return {
        "head": "Transf" if has_head else "None",
        "temporal_module": temporal_module,
        "joint": time is not None,
        "num_segments": None if time is None else time.shape[0],
    }


def _without_options(name: str) -> str:
    return name.replace(".net.", ".")


def _infer_towers(tensors: dict[str, Tensor], what: str) -> tuple[dict[str, Any], str | None]:
    """open_clip's configuration {embed_dim, vision_cfg, text_cfg} and the architecture's name."""
    is_resnet = any(name.startswith("visual.layer1.") for name in tensors)
    needed = RESNET_SIZES if is_resnet else VIT_SIZES
    missing = [name for name in needed if name not in tensors]
    if missing:
        others = [name for name in tensors if not name.startswith(KNOWN_NAMES)][:10]
        raise WeightsError(
            f"{what}: holds no whole vision tower of OpenAI's form: missing {', '.join(missing)}"
            + (f"; unexpected {', '.join(others)}" if others else "")
        )
    first, positions, projection = (tensors[name] for name in needed)
    grid = round((positions.shape[0] - 1) ** 0.5)
    patch = 32 if is_resnet else first.shape[-1]
    vision: dict[str, Any] = {"image_size": grid * patch, "width": first.shape[0]}
    if is_resnet:
        vision["layers"] = [_count(tensors, f"visual.layer{i}.") for i in (1, 2, 3, 4)]
    else:
        vision["patch_size"] = patch
        vision["layers"] = _count(tensors, "visual.transformer.resblocks.")
    embed_dim = projection.shape[0] if is_resnet else projection.shape[1]
    config = {"embed_dim": embed_dim, "vision_cfg": vision}
    return _complete(config, tensors)


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """One more than the highest block number, so that a gap shows as missing tensors."""
    numbers = (n[len(prefix) :].split(".")[0] for n in tensors if n.startswith(prefix))
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def _complete(
    config: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], str | None]:
    """Add the text tower, and find the architecture's name among open_clip's.

    A file that lacks a known architecture's last blocks counts as that architecture, so that the
    check of names tells what is missing.
    """
    text: dict[str, Any] = {}
    if "ln_final.weight" in tensors:
        text["width"] = tensors["ln_final.weight"].shape[0]
        text["layers"] = _count(tensors, "transformer.resblocks.")
        text["heads"] = max(text["width"] // 64, 1)
    if "positional_embedding" in tensors:
        text["context_length"] = tensors["positional_embedding"].shape[0]
    if "token_embedding.weight" in tensors:
        text["vocab_size"] = tensors["token_embedding.weight"].shape[0]
    name, known = _known(config, text)
    if known is None:
        default = {"width": config["embed_dim"], "heads": max(config["embed_dim"] // 64, 1)}
        return {**config, "text_cfg": default | text}, None
    size = config["vision_cfg"]["image_size"]
    vision = {**known["vision_cfg"], "image_size": size}
    return {**config, "vision_cfg": vision, "text_cfg": {**text, **known["text_cfg"]}}, name


def _known(
    config: dict[str, Any], text: dict[str, Any]
) -> tuple[str | None, dict[str, Any] | None]:
    """The open_clip architecture of these sizes, the one with the right input size first."""
    found = []
    for name in open_clip.list_models():
        other = open_clip.get_model_config(name) or {}
        vision, mine = other.get("vision_cfg", {}), config["vision_cfg"]
        plain = set(vision) <= PLAIN_VISION and "hf_model_name" not in other.get("text_cfg", {})
        if not plain or other["embed_dim"] != config["embed_dim"]:
            continue
        same = all(vision.get(k, 64) == mine[k] for k in mine if k not in ("image_size", "layers"))
        texts = (other["text_cfg"].get(k) for k in ("width", "context_length"))
        wanted = (text.get(k) for k in ("width", "context_length"))
        if not same or any(w is not None and w != t for w, t in zip(wanted, texts, strict=True)):
            continue
        lacking = _lacking(vision["layers"], mine["layers"])
        if lacking is not None:
            other_size = vision.get("image_size", 224) != mine["image_size"]
            found.append((lacking, other_size, len(name), name, other))
    if not found:
        return None, None
    *_, name, other = min(found, key=lambda row: row[:4])
    return name, other


def _lacking(whole: Any, found: Any) -> int | None:
    """Blocks missing from a tower; None if it is another tower."""
    if isinstance(whole, list) != isinstance(found, list):
        return None
    pairs = list(zip(whole, found, strict=True)) if isinstance(whole, list) else [(whole, found)]
    return None if any(f > w for w, f in pairs) else sum(w - f for w, f in pairs)
