"""CLIP towers from open_clip: names, building, the one weights file that later stages read.

`models/clip.safetensors` (written by prepare_clip) holds the parameters of the whole CLIP and, as
metadata, what is needed to build it again: architecture, activation, input size, source.
"""

import difflib
import hashlib
import json
import logging
import math
from pathlib import Path
from typing import Any

import open_clip
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clipzoo.config import ConfigError

open_clip.add_model_config(Path(__file__).parent / "configs")

CLIP_FILE = "models/clip.safetensors"


class WeightsError(ValueError):
    """A weights file does not fit the model it is loaded into."""


def open_clip_name(arch: str) -> str:
    """Name of an architecture as open_clip writes it: `ViT-L/14-336px` -> `ViT-L-14-336`.

    Raises:
        ConfigError: open_clip knows no such architecture; the message suggests near names.
    """
    name = arch.replace("/", "-").replace("@", "-").removesuffix("px")
    known = open_clip.list_models()
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise ConfigError(
        f"model.arch: found {arch!r}; allowed: any open_clip architecture"
        + (f" (did you mean {', '.join(near)}?)" if near else "")
        + "; open_clip.list_models() lists all"
    )


def input_size(arch: str, input_px: int) -> int:
    """`input_px` rounded up to a multiple of the vision tower's patch (32 for ResNets)."""
    vision = _model_config(arch)["vision_cfg"]
    patch = 32 if isinstance(vision.get("layers"), list) else vision.get("patch_size") or 1
    return math.ceil(input_px / patch) * patch


def build_clip(
    arch: str,
    input_px: int,
    *,
    quick_gelu: bool | None = None,
    pretrained: str | None = None,
    device: str = "cpu",
) -> nn.Module:
    """A CLIP of open_clip in float32, in evaluation mode.

    Args:
        arch: an architecture; both spellings of `open_clip_name`.
        input_px: input side; rounded up to a multiple of the patch.
        quick_gelu: activation x * sigmoid(1.702 x) of the OpenAI models; None = as the
            architecture's configuration says.
        pretrained: a tag or a file with weights; None = random initialisation.
        device: cpu, or meta for shapes alone (with `torch.device("meta")` as context).
    """
    name = open_clip_name(arch)
    override: dict[str, Any] = {} if quick_gelu is None else {"force_quick_gelu": quick_gelu}
    if pretrained is None:
        logging.disable(logging.WARNING)  # open_clip warns of a random initialisation
    try:
        model = open_clip.create_model(
            name,
            pretrained=pretrained,
            force_image_size=input_size(name, input_px),
            load_weights=pretrained is not None,
            device=device,
            **override,
        )
    finally:
        logging.disable(logging.NOTSET)
    return model.float().eval()


def uses_quick_gelu(model: nn.Module) -> bool:
    """Whether the towers of `model` use QuickGELU."""
    return any(type(m).__name__ == "QuickGELU" for m in model.modules())


def num_parameters(model: nn.Module) -> int:
    """Number of scalar parameters."""
    return sum(p.numel() for p in model.parameters())


def save_clip(model: nn.Module, path: str | Path, *, arch: str, input_px: int, source: str) -> None:
    """Write the CLIP's parameters and what builds it again to one safetensors file."""
    clip = {
        "arch": open_clip_name(arch),
        "input_px": input_size(arch, input_px),
        "quick_gelu": uses_quick_gelu(model),
        "source": source,
    }
    tensors = {k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}
    write_safetensors(tensors, path, {"clip": json.dumps(clip, sort_keys=True)})


def load_clip(path: str | Path = CLIP_FILE) -> tuple[nn.Module, dict[str, Any]]:
    """Build the CLIP of a file written by `save_clip` and load its parameters.

    Returns:
        the model (float32, CPU, evaluation mode) and {arch, input_px, quick_gelu, source}.

    Raises:
        WeightsError: the file is absent, or does not fit the architecture it names.
    """
    tensors, metadata = read_safetensors(path)
    if "clip" not in metadata:
        raise WeightsError(f"{path}: not written by prepare_clip (no 'clip' in its metadata)")
    clip = json.loads(metadata["clip"])
    model = build_clip(clip["arch"], clip["input_px"], quick_gelu=clip["quick_gelu"])
    load_strictly(model, tensors, str(path))
    return model, clip


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Load all of `tensors` into `model`; name every missing, unexpected or misshapen one.

    Raises:
        WeightsError: any name or shape differs.
    """
    check_names(model.state_dict(), tensors, what)
    model.load_state_dict(tensors)


def check_names(own: dict[str, Tensor], tensors: dict[str, Tensor], what: str) -> None:
    """Raise WeightsError unless `tensors` have the names and shapes of the model's `own`."""
    faults = [f"missing {name}" for name in own if name not in tensors]
    faults += [f"unexpected {name}" for name in tensors if name not in own]
    faults += [
        f"{name} has shape {list(tensors[name].shape)}, the model {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if faults:
        shown = "\n  ".join(faults[:20]) + (
            f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        )
        raise WeightsError(f"{what} does not fit the model: {len(faults)} tensors\n  {shown}")


def write_safetensors(
    tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]
) -> None:
    """Write to a new file beside `path`, then rename: DVC's linked files are never changed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata=metadata)
    _sort_metadata(part)
    part.replace(path)


def _sort_metadata(path: Path) -> None:
    """Order the metadata's keys: the library writes them in a new order every time, but equal
    content must be equal bytes, or DVC reruns every later stage."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "only the order has changed"
        file.seek(8)
        file.write(text.ljust(length))


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file (CPU) and its metadata.

    Raises:
        WeightsError: the file is absent or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; `dvc repro` writes it") from error
    except Exception as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def encode_images(model: nn.Module, images: Tensor) -> Tensor:
    """Embeddings [N, D] of normalised images [N, 3, H, W], as the tower gives them."""
    return model.encode_image(images)  # pyright: ignore[reportCallIssue]


def embed_dim(arch: str) -> int:
    """D, the size of the shared embedding."""
    return int(_model_config(arch)["embed_dim"])


def _model_config(arch: str) -> dict[str, Any]:
    config = open_clip.get_model_config(open_clip_name(arch))
    if config is None:
        raise AssertionError(f"open_clip lists {arch} but has no configuration for it")
    return config
