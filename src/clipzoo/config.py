"""The parameters of a run: frozen dataclasses and the only reader of params.yaml.

There are no defaults: what stands in params.yaml is all there is. Unknown, missing and mistyped
keys are errors that name the key and what is allowed.
"""

import dataclasses
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from clipzoo.files import near, write_json

SHOTS = (2, 4, 8, 16)
CROPS = (1, 3, 5, 10)


class ConfigError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


def _require(ok: bool, key: str, found: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{key}: found {found!r}; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    dataset: str
    """The dataset trained and tested on."""
    datasets: list[str]
    """Every dataset of the run: extracted, listed and embedded."""
    demo: list[str]
    """Datasets that make_demo renders."""
    zero_shot: list[str]
    """Datasets evaluated without training."""
    class_names: str
    """Name of a committed label file for `dataset`; '' = the one its dataset file names."""
    split: int
    """Official split, from 1, where a dataset has several."""
    shots: int
    """Training videos a class; 0 = all."""
    classes: Literal["all", "base"]
    """base: train on the more frequent half of the classes; test measures the others too."""
    min_frames: int
    """Training videos with fewer frames are dropped."""
    allow_missing: int
    """Exact number of broken or absent videos tolerated."""

    def __post_init__(self) -> None:
        _require(self.shots in (0, *SHOTS), "data.shots", self.shots, f"0 or one of {SHOTS}")
        _require(self.split >= 1, "data.split", self.split, "1 or more")
        _require(self.min_frames >= 0, "data.min_frames", self.min_frames, "0 or more")
        _require(self.allow_missing >= 0, "data.allow_missing", self.allow_missing, "0 or more")
        for key in ("demo", "zero_shot"):
            for name in getattr(self, key):
                _require(name in self.datasets, f"data.{key}", name, f"one of {self.datasets}")
        _require(
            self.dataset in self.datasets, "data.dataset", self.dataset, f"one of {self.datasets}"
        )


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    size: str
    """Stored frame size: '256' = short side, '340x256' = exact width x height (px)."""
    quality: int
    """ffmpeg's JPEG quantiser scale, 2 (best) to 31."""
    shard_videos: int
    """Videos in one tar shard."""

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", self.size) is not None,
            "frames.size",
            self.size,
            "a short side like '256' or an exact size like '340x256' (quoted)",
        )
        _require(2 <= self.quality <= 31, "frames.quality", self.quality, "2 to 31")
        _require(self.shard_videos >= 1, "frames.shard_videos", self.shard_videos, "1 or more")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    arch: str
    """The architecture that the demo's step budgets are made for."""
    train_videos: int
    """Training videos a class of the first dataset."""
    val_videos: int
    """Validation videos a class of the first dataset."""
    unseen_videos: int
    """Videos a class of the second dataset."""
    pretrain_steps: int
    """Contrastive pre-training steps of the stand-in CLIP."""
    pretrain_batch: int
    """Still-caption pairs a pre-training step."""
    pretrain_lr: float
    """Peak learning rate of pre-training."""
    other_pretrain_steps: int
    """Pre-training steps of an architecture other than `arch`."""
    other_pretrain_batch: int
    """Pairs a step of an architecture other than `arch`."""
    other_train_steps: int
    """Optimizer steps of training for an architecture other than `arch` on demo weights."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "arch":
                _require(value > 0, f"demo.{field.name}", value, "above 0")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    arch: str
    """An open_clip architecture; `ViT-L/14` and `ViT-L-14` are the same."""
    weights: str
    """demo | random | an open_clip pretrained tag | a path to a weights file."""
    checkpoint: str
    """A model file to start from, or to evaluate when train.epochs is 0; '' = none."""
    method: Literal["text4vis"]
    head: Literal["Transf", "None"]
    """Frames to video: temporal Transformer, or mean."""
    head_layers: int
    """Layers of the temporal Transformer (6 in the paper)."""
    temporal_module: Literal["none", "tsm", "tokenshift", "tokent1d"]
    """Exchange between frames inside the vision tower."""
    joint: bool
    """Joint space-time attention inside the vision tower."""
    num_segments: int
    """T: frames a clip, one from each equal temporal slice."""
    input_px: int
    """Input size (px), rounded up to a multiple of the tower's patch."""

    def __post_init__(self) -> None:
        for key in ("head_layers", "num_segments", "input_px"):
            _require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "1 or more")
        _require(bool(self.arch), "model.arch", self.arch, "an open_clip architecture")
        _require(bool(self.weights), "model.weights", self.weights, "demo, random, a tag or a file")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    templates: list[str]
    """Prompt templates; {} stands for the class name."""
    classifier: Literal["text", "random", "orthogonal", "lda"]
    """Initialisation of the frozen classifier of the training dataset; lda is computed by train
    from the raw CLIP's features of the training videos."""

    def __post_init__(self) -> None:
        _require(bool(self.templates), "text.templates", self.templates, "one template or more")
        for template in self.templates:
            _require(
                template.count("{}") == 1, "text.templates", template, "exactly one {} in each"
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    short_side_px: int
    """Frames are resized to this short side before the crop."""
    min_area: float
    """Smallest share of the frame's area in the random crop."""
    max_area: float
    min_aspect: float
    """Smallest aspect ratio (height / width or width / height) of the crop."""
    max_aspect: float
    flip: float
    """Probability of a horizontal flip of the whole clip."""
    grayscale: float
    """Probability of a clip in gray."""

    def __post_init__(self) -> None:
        area, aspect = (self.min_area, self.max_area), (self.min_aspect, self.max_aspect)
        _require(self.short_side_px >= 1, "augment.short_side_px", self.short_side_px, ">= 1")
        _require(0 < area[0] <= area[1] <= 1, "augment.min_area, max_area", area, "0 < a <= b <= 1")
        _require(0 < aspect[0] <= aspect[1], "augment.min_aspect, max_aspect", aspect, "0 < a <= b")
        for key in ("flip", "grayscale"):
            value = getattr(self, key)
            _require(0 <= value <= 1, f"augment.{key}", value, "a probability, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    epochs: int
    """0 = no training: the checkpoint (or the bare CLIP) is evaluated as it is."""
    warmup_epochs: int
    """Epochs of linear warm-up from 0."""
    batch_size: int
    """Clips in one optimizer step, over all processes and micro-batches."""
    lr: float
    """Peak learning rate of the head."""
    clip_ratio: float
    """The vision tower and logit_scale learn at lr * clip_ratio."""
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    schedule: Literal["cosine", "multistep", "constant"]
    milestones: list[float]
    """Epochs at which the multistep schedule multiplies the rate by `gamma`."""
    gamma: float
    update_every: int
    """Optimizer steps between two changes of the learning rate (10 in Text4Vis)."""
    precision: Literal["fp32", "fp16", "bf16"]
    loss: Literal["ce", "infonce"]
    """ce: against all classes; infonce: videos against the texts of their batch."""
    text_tower: Literal["frozen", "trained"]
    """Whether infonce trains the text tower too, at lr * clip_ratio."""
    average_epochs: int
    """The weights kept are the mean of those after each of the last N epochs; 0 = off."""
    grad_clip: float
    """Largest gradient norm; 0 = off."""
    activation_checkpointing: bool
    """Recompute activations in the backward pass: less memory, more time."""
    val_every: int
    """Epochs between two validations; the last epoch always validates."""
    select: Literal["last", "best"]
    """Which epoch's weights are kept."""
    checkpoint_every: int
    """Optimizer steps between two resume points."""

    def __post_init__(self) -> None:
        for key in (
            "epochs",
            "warmup_epochs",
            "weight_decay",
            "grad_clip",
            "clip_ratio",
            "average_epochs",
        ):
            _require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key in (
            "batch_size",
            "lr",
            "eps",
            "gamma",
            "update_every",
            "val_every",
            "checkpoint_every",
        ):
            _require(getattr(self, key) > 0, f"train.{key}", getattr(self, key), "above 0")
        _require(
            not self.average_epochs or self.select == "last",
            "train.select",
            self.select,
            "last, where train.average_epochs is not 0",
        )
        _require(
            self.text_tower == "frozen" or self.loss == "infonce",
            "train.text_tower",
            self.text_tower,
            "frozen, where train.loss is not infonce",
        )
        for key in ("beta1", "beta2"):
            _require(0 <= getattr(self, key) < 1, f"train.{key}", getattr(self, key), "0 <= b < 1")


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    clips: int
    """Temporal clips a video."""
    crops: int
    """Spatial crops a clip."""
    dense: bool
    """Clips are dense 128-frame windows instead of one frame from each segment."""
    short_side_px: int
    """Frames are resized to this short side before the crops."""
    precision: Literal["fp32", "fp16", "bf16"]

    def __post_init__(self) -> None:
        _require(self.clips >= 1, "test.clips", self.clips, "1 or more")
        _require(self.crops in CROPS, "test.crops", self.crops, f"one of {CROPS}")
        _require(self.short_side_px >= 1, "test.short_side_px", self.short_side_px, "1 or more")


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    protocols: list[Literal["full", "half", "splits"]]
    """full: all classes; half: 10 seeded halves of the classes; splits: the official splits' test
    videos, each by itself."""
    interpolation: list[float]
    """Shares alpha of the fine-tuned vision tower, (1 - alpha) raw + alpha fine-tuned, to evaluate
    besides; [] = off."""
    clips: int
    crops: int

    def __post_init__(self) -> None:
        _require(self.clips >= 1, "zero_shot.clips", self.clips, "1 or more")
        _require(self.crops in CROPS, "zero_shot.crops", self.crops, f"one of {CROPS}")
        _require(bool(self.protocols), "zero_shot.protocols", self.protocols, "full, half")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    processes: int
    """torchrun processes on this machine."""
    workers: int
    """Loader threads of each process."""
    micro_batch: int
    """Clips that a process encodes at once."""
    device: Literal["auto", "cpu", "cuda"]
    extract_workers: int
    """Extraction processes; 0 = one for each core."""

    def __post_init__(self) -> None:
        for key in ("processes", "workers", "micro_batch"):
            _require(getattr(self, key) >= 1, f"runtime.{key}", getattr(self, key), "1 or more")
        _require(self.extract_workers >= 0, "runtime.extract_workers", self.extract_workers, ">= 0")


@dataclass(frozen=True, kw_only=True)
class Params:
    """One run. The sections are those of params.yaml."""

    recipe: str
    """Name of the run: metrics/<recipe>/ and plots/<recipe>/."""
    seed: int
    data: DataConfig
    frames: FramesConfig
    demo: DemoConfig
    model: ModelConfig
    text: TextConfig
    augment: AugmentConfig
    train: TrainConfig
    test: TestConfig
    zero_shot: ZeroShotConfig
    runtime: RuntimeConfig

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"[\w.-]+(/[\w.-]+)*", self.recipe) is not None
            and ".." not in self.recipe,
            "recipe",
            self.recipe,
            "letters, digits, '.', '_', '-', with '/' between parts",
        )
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(
            self.data.classes == "all" or self.text.classifier == "text",
            "text.classifier",
            self.text.classifier,
            "text, since data.classes is base and novel classes have nothing but their names",
        )


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        ConfigError: the file is absent or not YAML, or a key is unknown, missing, mistyped or out
            of range; the message names the file and the key path.
    """
    return load(Params, path)


def load(cls: type[typing.Any], path: str | Path) -> Any:
    """Read a YAML file into the frozen dataclass `cls`; see `load_params` for the errors."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return build(cls, values, path)


def build(cls: type[typing.Any], values: Any, where: str | Path) -> Any:
    """The frozen dataclass `cls` of a mapping; errors name the key and, first, `where`."""
    try:
        return _build(cls, values, "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def flatten(values: typing.Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys: {"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, typing.Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def write_settings(params: Params, directory: str | Path) -> None:
    """Write settings.json: the values a result was made with, all but `runtime`, by dotted key."""
    values = dataclasses.asdict(params)
    del values["runtime"]
    write_json(flatten(values), Path(directory) / "settings.json")


def _build(kind: Any, value: Any, key: str) -> Any:
    """Check `value` against the annotation `kind`; numbers such as 5e-5 may come as strings."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_section(kind, value, key)
    if origin is Literal:
        allowed = typing.get_args(kind)
        value = "None" if value is None and "None" in allowed else value
        _require(value in allowed, key, value, ", ".join(map(str, allowed)) + near(value, allowed))
        return value
    if origin is list:
        _require(isinstance(value, list), key, value, "a list")
        (item,) = typing.get_args(kind)
        return [_build(item, v, f"{key}[{i}]") for i, v in enumerate(value)]
    if origin is types.UnionType:
        if value is None:
            return None
        return _build(next(k for k in typing.get_args(kind) if k is not type(None)), value, key)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    _require(type(value) is kind, key, value, f"a value of type {kind.__name__}")
    return value


def _build_section(kind: Any, value: Any, key: str) -> Any:
    _require(isinstance(value, dict), key or "the file", value, "a mapping of keys to values")
    fields = typing.get_type_hints(kind)
    prefix = f"{key}." if key else ""
    unset = dataclasses.MISSING
    optional = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is not unset or f.default_factory is not unset
    }
    for name in value:
        if name not in fields:
            raise ConfigError(
                f"unknown key {prefix}{name}; allowed: {', '.join(fields)}{near(name, fields)}"
            )
    for name, field_kind in fields.items():
        if name not in value and name not in optional:
            raise ConfigError(f"missing key {prefix}{name} ({_type_name(field_kind)})")
    return kind(**{k: _build(fields[k], v, f"{prefix}{k}") for k, v in value.items()})


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
