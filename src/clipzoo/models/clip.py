"""CLIP from open_clip: names, building, and the one weights file that later stages read.

`models/clip.safetensors` (written by prepare_clip) holds the parameters of the whole CLIP and, as
metadata, what is needed to rebuild it: architecture, activation, input size, source.
"""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import open_clip
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from clipzoo.config import MAX_PX, ConfigError, Params
from clipzoo.files import near, raise_all
from clipzoo.models.architectures import (
    check_text_extra,
    input_size,
    is_elsewhere,
    known_name,
    model_config,
    open_clip_name,
    remember,
)
from clipzoo.models.pixels import OPENAI, Pixels, pixels_of, preprocess_config
from clipzoo.paths import CLIP_FILE
from clipzoo.sections import Section, SectionType, build
from clipzoo.tensors import WeightsError, read_metadata, read_safetensors, write_safetensors


def has_small_budgets(params: Params) -> bool:
    """Whether the weights are a stand-in for an architecture other than the demo's.

    No accuracy is promised for it, so the budgets of `demo.other_archs` keep the pipeline short.
    """
    arch, demo_arch = params.model.arch, params.demo.arch
    return params.model.weights == "demo" and open_clip_name(arch) != open_clip_name(demo_arch)


def build_clip(
    arch: str,
    input_px: int,
    *,
    quick_gelu: bool | None = None,
    pixels: Pixels = OPENAI,
    pretrained: str | None = None,
    device: str = "cpu",
    config: dict[str, Any] | None = None,
) -> nn.Module:
    """A CLIP of open_clip in float32, in evaluation mode.

    Args:
        arch: an architecture, in either spelling of `open_clip_name`.
        input_px: input side; rounded up to a multiple of the patch.
        quick_gelu: activation x * sigmoid(1.702 x) of the OpenAI models; None = as the
            architecture's configuration says.
        pixels: what the weights expect of their input (`pixels_of` reads it).
        pretrained: a tag or a file with weights; None = random initialization.
        config: the configuration of a `local-dir:` or `hf-hub:` name, as `ClipMetadata` keeps it;
            None = `model_config`.
        device: cpu, or meta for shapes only (in a `torch.device("meta")` context).

    Raises:
        ConfigError: the text tower needs the extra `text`, which is not installed.
        WeightsError: the configuration of such a name is not one that open_clip can build, or the
            text tower's own cannot be downloaded.
    """
    name = open_clip_name(arch)
    check_text_extra(name, tokenizer=False, config=config)
    override: dict[str, Any] = {} if quick_gelu is None else {"force_quick_gelu": quick_gelu}
    if pretrained is None:
        logging.disable(logging.WARNING)  # open_clip warns about random initialization
    try:
        with known_name(name, config, pretrained) as known:
            towers = open_clip.create_model(
                known,
                pretrained=None if is_elsewhere(name) else pretrained,
                force_image_size=input_size(name, input_px, config),
                force_preprocess_cfg=preprocess_config(pixels),
                load_weights=pretrained is not None,
                require_pretrained=pretrained is not None,
                pretrained_text=False,  # of the package transformers, without CLIP's training
                device=device,
                **override,
            )
    except (OSError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        is_download = isinstance(error, OSError) and pretrained is None
        if is_download or (is_elsewhere(name) and not isinstance(error, ConfigError)):
            raise WeightsError(f"model.arch: open_clip cannot build {name} ({error})") from error
        raise
    finally:
        logging.disable(logging.NOTSET)
    return towers.float().eval()


def uses_quick_gelu(towers: nn.Module) -> bool:
    """Whether the towers use QuickGELU."""
    return any(type(m).__name__ == "QuickGELU" for m in towers.modules())


def num_parameters(model: nn.Module) -> int:
    """Number of scalar parameters."""
    return sum(p.numel() for p in model.parameters())


def save_clip(
    towers: nn.Module,
    path: str | Path,
    *,
    arch: str,
    input_px: int,
    source: str,
    environment: str = "",
) -> None:
    """Write an open_clip model's parameters, and its `ClipMetadata`, to one safetensors file."""
    metadata = describe_clip(towers, arch, input_px, source, environment)
    tensors = {k: v.detach().contiguous().clone() for k, v in towers.state_dict().items()}
    write_safetensors(tensors, path, {"clip": json.dumps(metadata, sort_keys=True)})


def describe_clip(
    towers: nn.Module, arch: str, input_px: int, source: str, environment: str = ""
) -> dict[str, Any]:
    """The fields of `ClipMetadata` of an open_clip model."""
    name = open_clip_name(arch)
    metadata: dict[str, Any] = {
        "arch": name,
        "input_px": input_size(arch, input_px),
        "quick_gelu": uses_quick_gelu(towers),
        "pixels": pixels_of(towers).model_dump(),
        "source": source,
        "environment": environment,
    }
    return {**metadata, "config": model_config(name)} if is_elsewhere(name) else metadata


def _known_arch(name: str) -> str:
    if not is_elsewhere(name) and name not in open_clip.list_models():
        raise ValueError(f"an open_clip architecture{near(name, open_clip.list_models())}")
    return name


class ClipMetadata(Section):
    """The JSON in a file's metadata from which its CLIP is rebuilt."""

    arch: Annotated[str, AfterValidator(_known_arch)]
    """The architecture, as `open_clip_name` writes it."""
    input_px: int = Field(ge=1, le=MAX_PX)
    """Side of the input, a multiple of the patch."""
    quick_gelu: bool
    """Whether the towers have QuickGELU."""
    pixels: Pixels = OPENAI
    """What the weights expect of their input; earlier versions had no others than OpenAI's."""
    source: str
    """The value of `model.weights` with which the file was written."""
    environment: str
    """Environment that computed the weights (`machine.environment`); '' = they were loaded."""
    config: dict[str, Any] | None = None
    """The configuration of a `local-dir:` or `hf-hub:` architecture, which open_clip's own have."""


def read_clip_metadata(path: str | Path = CLIP_FILE) -> dict[str, Any]:
    """The fields of `ClipMetadata` of a file; WeightsError if `save_clip` has not written it."""
    return _clip_metadata(read_metadata(path), path)


def _clip_metadata(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    if "clip" not in metadata:
        raise WeightsError(f"{path}: not written by prepare_clip (no 'clip' in its metadata)")
    section = checked_metadata(ClipMetadata, metadata["clip"], path, "clip")
    return section.model_dump(mode="json", exclude_none=True)  # no config, where open_clip has it


def checked_metadata(cls: type[SectionType], text: str, path: str | Path, key: str) -> SectionType:
    """The JSON object under a key of a file's metadata, as a section.

    Raises:
        WeightsError: names the file, and every key that is missing, unknown or wrong.
    """
    try:
        return build(cls, json.loads(text), path, f"metadata.{key}")
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            str(error) if isinstance(error, ConfigError) else f"{path}: metadata.{key}: {error}"
        ) from error


def load_clip(path: str | Path = CLIP_FILE) -> tuple[nn.Module, dict[str, Any]]:
    """Build the CLIP of a file written by `save_clip` and load its parameters.

    Returns:
        the towers (float32, CPU, evaluation mode), and the metadata (`read_clip_metadata`).

    Raises:
        WeightsError: the file is missing, or does not fit the architecture that it names.
    """
    tensors, texts = read_safetensors(path)
    metadata = _clip_metadata(texts, path)
    towers = rebuild_clip(ClipMetadata.model_validate(metadata))
    load_strictly(towers, tensors, str(path))
    return towers, metadata


def rebuild_clip(metadata: ClipMetadata) -> nn.Module:
    """The towers that a file's metadata describe, with random weights."""
    arch, input_px = metadata.arch, metadata.input_px
    remember(arch, metadata.config)
    return build_clip(
        arch,
        input_px,
        quick_gelu=metadata.quick_gelu,
        pixels=metadata.pixels,
        config=metadata.config,
    )


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load `tensors` into `model`, which must have the same names and shapes.

    Raises:
        WeightsError: names the file (`where`), and every missing, unexpected or misshapen tensor,
            or those with values that are not finite.
    """
    expected = model.state_dict()
    missing = [f"missing {name}" for name in expected if name not in tensors]
    unexpected = [f"unexpected {name}" for name in tensors if name not in expected]
    misshapen = [
        f"{name} has shape {list(tensors[name].shape)}, the model {list(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    raise_all(
        f"{where} does not fit the model: {len(missing)} tensors are missing, {len(unexpected)} "
        f"unexpected, {len(misshapen)} of another shape",
        misshapen + unexpected + missing,
        WeightsError,
    )
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    raise_all(
        f"{where}: {len(broken)} tensors have values that are infinite or not a number; allowed: "
        "finite weights; get the file again",
        broken,
        WeightsError,
    )
    model.load_state_dict(tensors)


def encode_images(towers: nn.Module, images: Tensor) -> Tensor:
    """Embeddings [N, D] of normalized images [N, 3, H, W] float32; not L2-normalized."""
    return towers.encode_image(images)  # pyright: ignore[reportCallIssue]


def encode_texts(towers: nn.Module, token_ids: Tensor) -> Tensor:
    """Embeddings [N, D] of token ids [N, L] int64; not L2-normalized."""
    return towers.encode_text(token_ids)  # pyright: ignore[reportCallIssue]
