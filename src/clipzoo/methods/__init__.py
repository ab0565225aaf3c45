"""The list of methods, and building, saving and loading one.

A method is one module here, one line of `METHODS`, and a section of params.yaml with its name.

A model file is safetensors: the module's parameters and, as metadata, what is needed to rebuild it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
from pydantic import AfterValidator, ConfigDict, Field
from torch import Tensor, nn

from clipzoo import config
from clipzoo.config import MAX_SEGMENTS, ConfigError, Params, Section
from clipzoo.files import file_sha256, near, raise_all
from clipzoo.methods import (
    actionclip,
    bike,
    bike_attributes,
    mote,
    openvclip,
    raw,
    text4vis,
    vificlip,
)
from clipzoo.methods.parts.method import Method
from clipzoo.methods.parts.raw import FrameMean
from clipzoo.methods.parts.released import TEXT_TOWER, check_text_tower, text_tensors
from clipzoo.models import archives
from clipzoo.models.activation import activation_name
from clipzoo.models.architectures import open_clip_name
from clipzoo.models.clip import (
    ClipMetadata,
    checked_metadata,
    load_clip,
    load_strictly,
    rebuild_clip,
)
from clipzoo.models.pixels import Pixels
from clipzoo.models.text import ClassText, tensor_faults
from clipzoo.paths import CLASSIFIER_FILE, CLIP_FILE, MODEL_FILE
from clipzoo.recorded import TrainedBy
from clipzoo.runtime.distributed import say
from clipzoo.settings import describe_difference, training_settings
from clipzoo.tensors import WeightsError, read_metadata, read_safetensors, write_safetensors

Options = TypeVar("Options", bound=Section)


@dataclass(frozen=True)
class MethodSpec(Generic[Options]):
    """What the project knows of a method before one is built."""

    options: type[Options]
    """The section of params.yaml with the method's name."""
    build: Callable[[nn.Module, Options, int], Method]
    """(any open_clip model, options, num_segments) -> the method, which the model becomes part of;
    ConfigError if the model's towers do not support an option."""
    read_released: Callable[[dict[str, Any], str], dict[str, Tensor]] | None = None
    """(content of a checkpoint that the authors released, its path) -> the method's state dict.

    Tensors have names with or without `module.` in the file, without it in the state dict, and are
    float32 if they are of floating point; whether they fit is checked when they are loaded. None if
    the authors released no checkpoint."""
    needs_tokens: Callable[[Options], bool] = lambda _: False
    """Whether the class text must have `token_embeddings`."""
    repeats_shots: bool = True
    """Whether an epoch of few-shot training repeats its videos until it is about as long as one
    over all videos."""
    trains_text: str = ""
    """The option that trains the text tower too, as `key: value`; "" = the method has none."""


METHODS: dict[str, MethodSpec[Any]] = {
    "raw": MethodSpec(raw.Options, raw.build),
    "text4vis": MethodSpec(
        text4vis.Options,
        text4vis.Text4Vis,
        text4vis.read_released,
        trains_text="text_tower: trained",
    ),
    "bike": MethodSpec(bike.Options, bike.Bike, bike.read_released, bike.needs_tokens),
    "bike_attributes": MethodSpec(
        bike_attributes.Options, bike_attributes.BikeAttributes, bike_attributes.read_released
    ),
    "actionclip": MethodSpec(
        actionclip.Options,
        actionclip.ActionClip,
        actionclip.read_released,
        trains_text="text_tower: trained",
    ),
    "mote": MethodSpec(mote.Options, mote.Mote, mote.read_released),
    "vificlip": MethodSpec(
        vificlip.Options,
        vificlip.ViFiClip,
        vificlip.read_released,
        repeats_shots=False,
        trains_text="trained: both",
    ),
    "openvclip": MethodSpec(openvclip.Options, openvclip.OpenVclip, openvclip.read_released),
}


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"{', '.join(METHODS)}{near(name, METHODS)}")
    return name


class ModelDescription(Section):
    """What rebuilds a model whose tensors are in a file."""

    clip: ClipMetadata
    """Architecture, input size, activation and pixels."""
    method: Annotated[str, AfterValidator(_known_method)]
    num_segments: int = Field(ge=1, le=MAX_SEGMENTS)
    """T: frames of a clip."""
    options: dict[str, Any]
    """The options of the method, which checks them."""


class ModelMetadata(TrainedBy, ModelDescription):
    """JSON in the metadata of a model file."""

    model_config = ConfigDict(extra="forbid")


def read_options(params: Params, where: str | Path = "params.yaml") -> Section:
    """The validated options of `model.method`; `Params` does not validate that section.

    Raises:
        ConfigError: an option is unknown, missing, mistyped or not allowed; the message names the
            file `where` and the key.
    """
    name = params.model.method
    return config.build(METHODS[name].options, params.options, where, name)


def needs_token_embeddings(params: Params) -> bool:
    """Whether the method of a run compares frames with the tokens of the class prompts.

    Raises:
        ConfigError: as `read_options`.
    """
    return METHODS[params.model.method].needs_tokens(read_options(params))


def build(params: Params, towers: nn.Module) -> Method:
    """Build the method of a run around an open_clip model, which becomes part of it.

    Raises:
        ConfigError: as `read_options`, or the towers do not support an option.
    """
    spec = METHODS[params.model.method]
    return spec.build(towers, read_options(params), params.model.num_segments)


def new_model(params: Params) -> tuple[Method, dict[str, Any]]:
    """The model that training starts from: the raw CLIP with a newly initialized head, or
    `model.checkpoint`.

    Returns:
        the model (float32, CPU), and the metadata for its model file.

    Raises:
        WeightsError: models/clip.safetensors or the checkpoint is missing, or they are of another
            architecture or of different activations.
        ConfigError: as `build`, or the method cannot read such a checkpoint.
    """
    towers, meta = load_clip()
    _check_arch(CLIP_FILE, meta["arch"], params)
    others = ("visual.", "logit_")
    text_tower = {k: v for k, v in towers.state_dict().items() if not k.startswith(others)}
    if params.model.checkpoint and _is_released(params):  # all are of OpenAI's family
        _check_activation(params.model.checkpoint, True, meta)
    torch.manual_seed(params.seed)  # the head's initialization
    model = build(params, towers)
    metadata: dict[str, Any] = {
        "clip": meta,
        "method": params.model.method,
        "num_segments": params.model.num_segments,
        "options": params.options,
        "recipe": params.recipe,
        "settings": training_settings(params.settings()),
    }
    if params.model.checkpoint:
        _load_checkpoint(model, params, text_tower, meta)
        metadata["checkpoint_sha256"] = file_sha256(params.model.checkpoint)
    return model, metadata


def load_model(params: Params, path: str | Path = MODEL_FILE) -> Method:
    """Build the model of a file written by `save_model` (float32, CPU, evaluation mode).

    Raises:
        WeightsError: the file is missing, does not fit, holds another architecture than
            `model.arch`, or was trained with other settings than those of the run.
    """
    tensors, metadata = read_safetensors(path)
    meta = _model_metadata(metadata, path)
    _check_arch(path, meta.clip.arch, params)
    check_settings(meta, params, path)
    return rebuild_model(meta, tensors, path, described=(path, "metadata.model.options"))


def rebuild_model(
    about: ModelDescription,
    tensors: dict[str, Tensor],
    path: str | Path,
    *,
    described: tuple[str | Path, str],
) -> Method:
    """The model (float32, CPU, evaluation mode) of a description, with the tensors of a file.

    Args:
        path: the file of the tensors.
        described: the file of the description, and the key of its options.

    Raises:
        ConfigError: the options are not those of the method.
        WeightsError: the tensors do not fit.
    """
    spec = METHODS[about.method]
    options = config.build(spec.options, about.options, *described)
    model = spec.build(rebuild_clip(about.clip), options, about.num_segments)
    _load(model, tensors, str(path))
    return model.eval()


def check_settings(meta: ModelMetadata, params: Params, path: str | Path = MODEL_FILE) -> None:
    """Raise WeightsError unless a model file was trained with the settings of a run."""
    if not meta.settings:
        raise WeightsError(
            f"{path}: an earlier version of this project wrote it, without the settings of its "
            "training; `dvc repro` trains it again"
        )
    expected = training_settings(params.settings())
    if changed := describe_difference(meta.settings, expected):
        raise WeightsError(
            f"{path}: the run {meta.recipe} trained it with other settings than those of "
            f"params.yaml ({changed}); `dvc repro` trains it again"
        )


def read_model_metadata(path: str | Path = MODEL_FILE) -> ModelMetadata:
    """The metadata of a model file; WeightsError if it is missing, or not written by train."""
    return _model_metadata(read_metadata(path), path)


def _model_metadata(metadata: Mapping[str, str], path: str | Path) -> ModelMetadata:
    if "model" not in metadata:
        raise WeightsError(f"{path}: not written by train (no 'model' in its metadata)")
    return checked_metadata(ModelMetadata, metadata["model"], path, "model")


def raw_model() -> FrameMean:
    """The raw CLIP as a video model: the mean of its frame embeddings, nothing trained."""
    return FrameMean(load_clip()[0]).eval()


def untrained(
    towers: nn.Module, clip: ClipMetadata, num_segments: int
) -> tuple[Method, ModelDescription]:
    """The model of `raw_model` around any CLIP, and what rebuilds it.

    Args:
        towers: an open_clip model in evaluation mode, whose vision tower becomes part of the model.
        clip: describes it.
        num_segments: T, the frames of a clip.
    """
    options = raw.Options(fusion="mean", test_sampler="first")
    about = ModelDescription(
        clip=clip, method="raw", num_segments=num_segments, options=options.model_dump()
    )
    return raw.build(towers, options, num_segments).eval(), about


def save_model(model: Method, path: str | Path, metadata: dict[str, Any]) -> None:
    """Write a model file, atomically."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    write_safetensors(tensors, path, {"model": json.dumps(metadata, sort_keys=True)})


def save_classifier(class_embeddings: Tensor) -> None:
    """Write the class embeddings [P, K, D] that training was given (`Method.class_text` was not
    applied to them): those of embed_labels, or of an LDA."""
    write_safetensors(
        {"given_embeddings": class_embeddings.cpu().contiguous()}, CLASSIFIER_FILE, {}
    )


def load_classifier(num_classes: int) -> Tensor:
    """Read the class embeddings [P, K, D] that training was given, of K = `num_classes`.

    Raises:
        WeightsError: the file is missing, or holds something else.
    """
    tensors, _ = read_safetensors(CLASSIFIER_FILE)
    raise_all(
        f"{CLASSIFIER_FILE}: not as train writes it; `dvc repro --force train` writes it again",
        tensor_faults(tensors, {"given_embeddings": "PKD"}, {"K": num_classes}),
        WeightsError,
    )
    return tensors["given_embeddings"]


def trained_text(text: ClassText, num_trained: int) -> ClassText:
    """The class text that training was given for its dataset.

    It is that of embed_labels, but for the rows of an LDA classifier, which training alone knows.
    These need videos of every class, so a training on some classes has none.

    Args:
        text: of embed_labels, of all K classes.
        num_trained: number of the classes trained on.

    Raises:
        WeightsError: the classifier of the training is missing.
    """
    if num_trained < text.num_classes:
        return text
    return replace(text, class_embeddings=load_classifier(text.num_classes))


def _check_arch(path: str | Path, arch: str, params: Params) -> None:
    expected = open_clip_name(params.model.arch)
    if arch != expected:
        raise WeightsError(
            f"{path} holds {arch}, but model.arch is {expected}; "
            f"run `dvc repro` to rebuild the file, or set model.arch to {arch}"
        )


def _is_released(params: Params) -> bool:
    return Path(params.model.checkpoint).suffix != ".safetensors"


def _check_activation(path: str | Path, quick_gelu: bool, clip: dict[str, Any]) -> None:
    """Raise WeightsError if a checkpoint's towers have another activation than the CLIP weights.

    The class texts are embedded by the CLIP weights. Under the wrong activation nothing fails, but
    the probabilities of a released model of Text4Vis are off by 0.006. `clip` is the metadata of
    the weights.
    """
    if quick_gelu == clip["quick_gelu"]:
        return
    arch = open_clip_name(clip["arch"])
    name = f"{arch}-quickgelu"
    ways = f"model.weights to openai, or model.activation to quickgelu for a file, or {name}"
    advice = f"set {ways} as model.arch" if quick_gelu else "set model.weights to its weights"
    raise WeightsError(
        f"model.checkpoint {path}: its towers have {activation_name(quick_gelu)}, but those of "
        f"{CLIP_FILE} (model.weights {clip['source']}, model.arch {arch}) have "
        f"{activation_name(clip['quick_gelu'])}, and the class texts are embedded by them; "
        f"{advice}, and run `dvc repro`"
    )


def _check_pixels(path: str | Path, pixels: Pixels, expected: Pixels) -> None:
    """Raise WeightsError if a model file was trained with other pixels than the run has."""
    if pixels != expected:
        raise WeightsError(
            f"model.checkpoint {path}: was trained with the pixels {pixels}; {CLIP_FILE} has "
            f"{expected}; set model.pixels to those of the checkpoint, and run `dvc repro`"
        )


def raw_share_to_add(params: Params) -> float:
    """The share of the raw CLIP that is to be put into the model of a run at its end.

    That is `train.raw_clip_share`, but 0 where a model that has it already is evaluated: the kept
    model of a parent. A released file has none.

    Raises:
        WeightsError: as `read_model_metadata`, of `model.checkpoint`.
    """
    share, path = params.train.raw_clip_share, params.model.checkpoint
    if not share or params.train.epochs or not path or _is_released(params):
        return share
    metadata = read_metadata(path)
    known = _model_metadata(metadata, path).settings if "model" in metadata else {}
    return 0.0 if known.get("train.raw_clip_share") else share


def _check_raw_share(path: str | Path, meta: ModelMetadata, params: Params) -> None:
    """Raise ConfigError if a run that does not train has a model with another share of the raw CLIP
    than it says."""
    added, share = meta.settings.get("train.raw_clip_share"), params.train.raw_clip_share
    if added and added != share and not params.train.epochs:
        raise ConfigError(
            f"train.raw_clip_share: found {share}; allowed: {added}, because model.checkpoint "
            f"{path} has that share of the raw CLIP, which cannot be taken out of it"
        )


def _load_checkpoint(
    model: Method, params: Params, text_tower: dict[str, Tensor], clip: dict[str, Any]
) -> None:
    """Load `model.checkpoint`: a model file of this project, or one that the authors released.

    `text_tower` and `clip` are the text tower and the metadata of models/clip.safetensors.
    """
    path = Path(params.model.checkpoint)
    if not path.is_file():
        raise WeightsError(f"model.checkpoint: {path} is not a file; give its path, or '' for none")
    if not _is_released(params):
        tensors, metadata = read_safetensors(path)
        if "model" in metadata:
            meta = _model_metadata(metadata, path)
            _check_arch(path, meta.clip.arch, params)
            _check_activation(path, meta.clip.quick_gelu, clip)
            _check_pixels(path, meta.clip.pixels, Pixels.model_validate(clip["pixels"]))
            _check_raw_share(path, meta, params)
    else:
        content = archives.read_file(path)
        if unread := archives.unread_keys(content, "fusion_model_state_dict"):
            say(f"{path}: keys that are not read: {', '.join(map(str, unread))}")
        tensors = _released_tensors(content, model, params, text_tower)
    _load(model, tensors, f"model.checkpoint {path}")


def _load(model: Method, tensors: dict[str, Tensor], where: str) -> None:
    """Load all tensors of a file into a model; WeightsError, which names `where`, if some do not
    fit."""
    model.make_room(tensors, where)
    load_strictly(model, tensors, where)


def check_released(model: Method, params: Params) -> None:
    """Load `model.checkpoint`, a file that the authors released, into any model of a run.

    That is as `new_model` does, but without the CLIP weights, with whose text tower and activation
    nothing is compared.

    Raises:
        WeightsError: the file cannot be read, or does not fit.
        ConfigError: the method reads no released file.
    """
    path = params.model.checkpoint
    tensors = _released_tensors(archives.read_file(path), model, params, {})
    _load(model, tensors, f"model.checkpoint {path}")


def _released_tensors(
    content: dict[str, Any], model: Method, params: Params, text_tower: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What a model is to load of the content of `model.checkpoint`, a released file.

    `text_tower` is that of models/clip.safetensors, with which the file's is compared.
    """
    path, spec = params.model.checkpoint, METHODS[params.model.method]
    if spec.read_released is None:
        raise ConfigError(
            f"model.checkpoint: {path} is not a model file of this project (.safetensors), and "
            f"model.method {params.model.method} reads no other kind"
        )
    tensors = spec.read_released(content, path)
    trained = [p.requires_grad for k, p in model.named_parameters() if k.startswith("text.")]
    if not any(trained):  # the class texts of the run are those of the CLIP weights
        expected = {k: v for k, v in text_tower.items() if TEXT_TOWER + k not in model.of_clip}
        option = spec.trains_text and f"{params.model.method}.{spec.trains_text}"
        found = text_tensors(tensors) or content
        check_text_tower(found, expected, path, trained_by=option)
    if not trained:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("text.")}
    return {k: v for k, v in model.state_dict().items() if k in model.of_clip} | tensors
