"""The parameters of a run: frozen pydantic models and the only reader of params.yaml.

There are no defaults: params.yaml holds every value. Unknown, missing and mistyped keys are errors
that name the key and the allowed values; all errors of a file are reported at once.

The options of a method are a top-level section with its name (`text4vis:`). This module does not
know their keys: a method is a module of `clipzoo.methods` and checks its section itself.
"""

import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from clipzoo.files import near

SHOTS = (2, 4, 8, 16)
CROPS = (1, 3, 5, 10)
METHODS_DIR = Path(__file__).parent / "methods"


class ConfigError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class Section(BaseModel):
    """A mapping in a YAML file: frozen, with exactly the declared keys and types.

    A validator of one value raises ValueError with the text for what is allowed; a validator of
    several values calls `require`. `build` composes the message.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


SectionType = TypeVar("SectionType", bound=Section)


def require(*checks: tuple[bool, str, object, str]) -> None:
    """For a model validator: each check is (ok, key in this section, its value, what is allowed).

    Raises:
        ConfigError: one line for each check that failed.
    """
    lines = [_fault(key, value, allowed) for ok, key, value, allowed in checks if not ok]
    if lines:
        raise ConfigError("\n".join(lines))


def method_names() -> list[str]:
    """Names of the modules in `clipzoo.methods`, sorted; imports none of them."""
    return sorted(path.stem for path in METHODS_DIR.glob("[!_]*.py"))


def _fault(key: str, value: object, allowed: str) -> str:
    return f"{key}: found {value!r}; allowed: {allowed}"


def _read_number(value: object) -> object:
    """Read 5e-5 as a float: PyYAML takes it for text and expects 5.0e-5."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _read_none(value: object) -> object:
    return "None" if value is None else value


def _one_of(*allowed: int) -> AfterValidator:
    def check(value: int) -> int:
        if value not in allowed:
            raise ValueError(", ".join(map(str, allowed)))
        return value

    return AfterValidator(check)


def _one_place(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("exactly one {} in each")
    return template


def _frame_size(size: object) -> str:
    if not isinstance(size, str) or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", size):
        raise ValueError(
            "text, a short side like '256' or an exact size like '340x256'; "
            "on the command line, -S \"frames.size='256'\""
        )
    return size


def _recipe_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name:
        raise ValueError("letters, digits, '.', '_', '-', with '/' between parts")
    return name


def _method(name: str) -> str:
    if name not in method_names():
        raise ValueError(", ".join(method_names()) + near(name, method_names()))
    return name


def _method_section(name: str) -> str:
    if name not in method_names():
        raise PydanticCustomError("extra_forbidden", "unknown key")
    return name


Float = Annotated[float, BeforeValidator(_read_number)]
"""A finite float; also an int, or text such as 5e-5."""
NoneWord = BeforeValidator(_read_none)
"""For a choice of words that includes `None`: YAML's null means that word."""


class DataConfig(Section):
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
    split: int = Field(ge=1)
    """Official split, counted from 1, of a dataset that has several."""
    shots: Annotated[int, _one_of(0, *SHOTS)]
    """Training videos per class; 0 = all."""
    classes: Literal["all", "base"]
    """base: train on the more frequent half of the classes; test measures the others too."""
    min_frames: int = Field(ge=0)
    """Training videos with fewer frames are dropped."""
    allow_missing: int = Field(ge=0)
    """Exact number of broken or missing videos tolerated."""

    @model_validator(mode="after")
    def _datasets_are_listed(self) -> "DataConfig":
        used = [("dataset", self.dataset)]
        used += [("demo", name) for name in self.demo]
        used += [("zero_shot", name) for name in self.zero_shot]
        allowed = f"one of data.datasets: {', '.join(self.datasets)}"
        require(
            *(
                (name in self.datasets, key, name, allowed + near(name, self.datasets))
                for key, name in used
            )
        )
        return self


class FramesConfig(Section):
    size: Annotated[str, BeforeValidator(_frame_size)]
    """Stored frame size: '256' = short side, '340x256' = exact width x height (px)."""
    quality: int = Field(ge=2, le=31)
    """ffmpeg's JPEG quantiser scale, 2 (best) to 31."""
    shard_videos: int = Field(ge=1)
    """Videos in one tar shard."""


class DemoConfig(Section):
    arch: str
    """The architecture that the demo's step budgets are made for."""
    train_videos: int = Field(ge=1)
    """Training videos per class of the first dataset."""
    val_videos: int = Field(ge=1)
    """Validation videos per class of the first dataset."""
    unseen_videos: int = Field(ge=1)
    """Videos per class of the second dataset."""
    pretrain_steps: int = Field(ge=1)
    """Contrastive pre-training steps of the stand-in CLIP."""
    pretrain_batch: int = Field(ge=1)
    """Still-caption pairs per pre-training step."""
    pretrain_lr: Float = Field(gt=0)
    """Peak learning rate of pre-training."""
    other_pretrain_steps: int = Field(ge=1)
    """Pre-training steps of an architecture other than `arch`."""
    other_pretrain_batch: int = Field(ge=1)
    """Pairs per step of an architecture other than `arch`."""
    other_train_steps: int = Field(ge=1)
    """Optimizer steps of training for an architecture other than `arch` on demo weights."""
    other_videos: int = Field(ge=1)
    """Videos per class that evaluations encode with such an architecture."""


class ModelConfig(Section):
    arch: str = Field(min_length=1)
    """An open_clip architecture; `ViT-L/14` and `ViT-L-14` are the same."""
    weights: str = Field(min_length=1)
    """demo | random | an open_clip pretrained tag | a path to a weights file."""
    checkpoint: str
    """A model file to start from, or to evaluate when train.epochs is 0; '' = none."""
    method: Annotated[str, AfterValidator(_method)]
    """A module of `clipzoo.methods`; the section with its name holds its options."""
    num_segments: int = Field(ge=1)
    """T: frames per clip, one from each equal temporal slice."""
    input_px: int = Field(ge=1)
    """Input size (px), rounded up to a multiple of the tower's patch."""


class TextConfig(Section):
    templates: list[Annotated[str, AfterValidator(_one_place)]] = Field(min_length=1)
    """Prompt templates; {} stands for the class name."""
    classifier: Literal["text", "random", "orthogonal", "lda"]
    """Initialisation of the frozen classifier of the training dataset; lda is computed by train
    from the raw CLIP's features of the training videos."""


class AugmentConfig(Section):
    short_side_px: int = Field(ge=1)
    """Frames are resized to this short side before the crop."""
    min_area: Float = Field(gt=0, le=1)
    """Smallest share of the frame's area in the random crop."""
    max_area: Float = Field(gt=0, le=1)
    """Largest share of the frame's area."""
    min_aspect: Float = Field(gt=0)
    """Smallest aspect ratio (height / width or width / height) of the crop."""
    max_aspect: Float = Field(gt=0)
    """Largest aspect ratio."""
    flip: Float = Field(ge=0, le=1)
    """Probability of a horizontal flip of the whole clip."""
    grayscale: Float = Field(ge=0, le=1)
    """Probability of turning the whole clip gray."""

    @model_validator(mode="after")
    def _smallest_before_largest(self) -> "AugmentConfig":
        area = (self.min_area <= self.max_area, "min_area", self.min_area)
        aspect = (self.min_aspect <= self.max_aspect, "min_aspect", self.min_aspect)
        require(
            (*area, f"at most augment.max_area, {self.max_area}"),
            (*aspect, f"at most augment.max_aspect, {self.max_aspect}"),
        )
        return self


class TrainConfig(Section):
    epochs: int = Field(ge=0)
    """0 = no training: the checkpoint (or the bare CLIP) is evaluated as it is."""
    warmup_epochs: int = Field(ge=0)
    """Epochs of linear warm-up from 0."""
    batch_size: int = Field(ge=1)
    """Clips in one optimizer step, over all processes and micro-batches."""
    lr: Float = Field(gt=0)
    """Peak learning rate of the head."""
    clip_ratio: Float = Field(ge=0)
    """The vision tower and logit_scale learn at lr * clip_ratio."""
    weight_decay: Float = Field(ge=0)
    """AdamW's weight decay, applied to every parameter."""
    beta1: Float = Field(ge=0, lt=1)
    """AdamW's decay of the mean gradient."""
    beta2: Float = Field(ge=0, lt=1)
    """AdamW's decay of the mean squared gradient."""
    eps: Float = Field(gt=0)
    """AdamW's epsilon, added to the root of the mean squared gradient."""
    schedule: Literal["cosine", "multistep", "constant"]
    """Learning rate schedule after the warm-up."""
    milestones: list[Float]
    """Epochs at which the multistep schedule multiplies the rate by `gamma`."""
    gamma: Float = Field(gt=0)
    """Factor of the multistep schedule."""
    update_every: int = Field(ge=1)
    """Optimizer steps between two changes of the learning rate (10 in Text4Vis)."""
    precision: Literal["fp32", "fp16", "bf16"]
    """Precision of the forward pass, under autocast; the weights are float32."""
    average_epochs: int = Field(ge=0)
    """Save the mean of the weights after each of the last N epochs; 0 = off."""
    grad_clip: Float = Field(ge=0)
    """Largest gradient norm; 0 = off."""
    activation_checkpointing: bool
    """Recompute activations in the backward pass: less memory, more time."""
    compile: bool
    """Compile the vision tower (torch.compile): faster on a GPU, other rounding."""
    fused: bool
    """AdamW in one kernel: faster on a GPU, other rounding."""
    val_precision: Literal["fp32", "fp16", "bf16"]
    """Precision of the validations during training, under autocast."""
    val_every: int = Field(ge=1)
    """Epochs between two validations; the last epoch always validates."""
    select: Literal["last", "best"]
    """Which epoch's weights are saved."""
    checkpoint_every: int = Field(ge=1)
    """Optimizer steps between two resume points."""

    @model_validator(mode="after")
    def _averages_are_of_the_last(self) -> "TrainConfig":
        ok = not self.average_epochs or self.select == "last"
        require((ok, "select", self.select, "last, because train.average_epochs is not 0"))
        return self


class TestConfig(Section):
    clips: int = Field(ge=1)
    """Temporal clips per video."""
    crops: Annotated[int, _one_of(*CROPS)]
    """Spatial crops per clip."""
    dense: bool
    """Clips are dense 128-frame windows instead of one frame from each segment."""
    short_side_px: int = Field(ge=1)
    """Frames are resized to this short side before the crops."""
    precision: Literal["fp32", "fp16", "bf16"]
    """Precision of the forward pass, under autocast."""


class ZeroShotConfig(Section):
    protocols: list[Literal["full", "half", "splits"]] = Field(min_length=1)
    """full: all classes; half: 10 seeded halves of the classes; splits: the test videos of each
    official split."""
    interpolation: list[Float]
    """Also evaluate vision towers with the weights (1 - alpha) raw + alpha fine-tuned, for each of
    these alpha; [] = off."""
    clips: int = Field(ge=1)
    """Temporal clips per video."""
    crops: Annotated[int, _one_of(*CROPS)]
    """Spatial crops per clip."""


class RuntimeConfig(Section):
    processes: int = Field(ge=0)
    """torchrun processes on this machine; 0 = one for each GPU, 2 on a CPU."""
    workers: int = Field(ge=0)
    """Loader threads of each process; 0 = chosen for the machine."""
    micro_batch: int = Field(ge=0)
    """Clips that a process encodes at once; 0 = chosen for the machine."""
    device: Literal["auto", "cpu", "cuda"]
    """auto: a GPU if one is available."""
    max_restarts: int = Field(ge=0)
    """Times that train, test and zero_shot are restarted after a process or machine was lost."""
    extract_workers: int = Field(ge=0)
    """Extraction processes; 0 = one for each core."""
    executor: Literal["processes", "dask"]
    """Where extraction runs: processes of this machine, or the workers of a Dask cluster."""
    scheduler: str
    """Address of the Dask scheduler, tcp://host:8786, for `executor: dask`."""

    @model_validator(mode="after")
    def _dask_has_a_scheduler(self) -> "RuntimeConfig":
        # Anything else would make Dask's Client hang when it is thrown away.
        valid = re.fullmatch(r"(tcp|tls)://\S+:\d+", self.scheduler)
        allowed = "tcp://host:8786 or tls://host:8786, the address that `dask scheduler` prints"
        require((self.executor != "dask" or bool(valid), "scheduler", self.scheduler, allowed))
        return self


class Params(Section):
    """One run: the sections of params.yaml, which include those of one or more methods."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[  # pyright: ignore[reportIncompatibleVariableOverride]
        Annotated[str, AfterValidator(_method_section)], dict[str, Any]
    ]

    recipe: Annotated[str, AfterValidator(_recipe_name)]
    """Name of the run: metrics/<recipe>/ and plots/<recipe>/."""
    seed: int = Field(ge=0)
    """Seed of every random choice, combined with the epoch, video or class."""
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

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        method, classifier = self.model.method, self.text.classifier
        sections = ", ".join(self.methods) or "none is"
        named = self.data.classes == "all" or classifier == "text"
        require(
            (
                method in self.methods,
                "model.method",
                method,
                f"a method with a section in the file: {sections}; or add the section {method}:",
            ),
            (
                named,
                "text.classifier",
                classifier,
                "text, because data.classes is base and novel classes have only their names",
            ),
        )
        return self

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The sections of all methods in the file, unchecked."""
        return self.__pydantic_extra__

    @property
    def options(self) -> dict[str, Any]:
        """The section of `model.method`, unchecked: the method checks it."""
        return self.methods[self.model.method]

    def settings(self) -> dict[str, Any]:
        """Every value that can change a number, by dotted key: all except `runtime` and the
        sections of other methods."""
        others = self.methods.keys() - {self.model.method}
        return flatten(self.model_dump(exclude={"runtime", *others}))


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        ConfigError: the file is missing or not YAML, or keys are unknown, missing, mistyped or out
            of range; the message names the file and every wrong key.
    """
    return load(Params, path)


def load(cls: type[SectionType], path: str | Path) -> SectionType:
    """Read a YAML file into the section `cls`; raises as `load_params`."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return build(cls, values, path)


def build(cls: type[SectionType], values: object, where: str | Path, key: str = "") -> SectionType:
    """Validate a mapping as the section `cls`.

    Args:
        cls: the model.
        values: the mapping, as parsed from YAML.
        where: the file, for messages.
        key: of the mapping in that file, dotted; '' = the mapping is the whole file.

    Raises:
        ConfigError: names `where` and every fault: its key, the value and what is allowed.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = _describe(cls, error.errors(include_url=False), (key,) if key else ())
    text = faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} faults", *faults])
    raise ConfigError(f"{where}: {text}") from None


def replace(section: SectionType, values: Mapping[str, Any]) -> SectionType:
    """A copy with some values changed, by dotted key, checked like a file.

    Example: `replace(params, {"train.lr": 1e-3, "runtime.micro_batch": 2})`.

    Raises:
        ConfigError: as `build`.
    """
    changed = section.model_dump()
    for key, value in values.items():
        *parents, last = key.split(".")
        mapping = changed
        for parent in parents:
            mapping = mapping.setdefault(parent, {})
        mapping[last] = value
    return build(type(section), changed, "changed values")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys: {"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# Below: pydantic's errors in our words.

_TYPES = {
    "int_type": "a value of type int",
    "float_type": "a value of type float",
    "string_type": "a value of type str",
    "bool_type": "a value of type bool",
    "finite_number": "a finite number",
    "invalid_key": "keys that are text",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "too_short": "one value or more",
    "string_too_short": "some text",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "below {lt:g}",
    "less_than_equal": "{le:g} or less",
}
"""pydantic's type of error -> what is allowed; `{}` stands for limits from its context."""

Location = tuple[int | str, ...]


def _describe(cls: type[Section], errors: list[ErrorDetails], start: Location) -> list[str]:
    """The faults of a mapping, one line each, in the order of the declared keys."""
    unknown = {error["loc"] for error in errors if error["type"] == "extra_forbidden"}
    lines = []
    for error in errors:
        kind, location, context = error["type"], error["loc"], error.get("ctx", {})
        key, value = _dotted(start + location), error["input"]
        if kind == "extra_forbidden":
            lines.append(_unknown_key(cls, location, key))
        elif location in unknown:
            pass  # the content of an unknown key does not matter
        elif kind == "missing":
            lines.append(f"missing key {key} ({_type_name(_annotation(cls, location))})")
        elif kind == "literal_error":
            choices = _choices(_annotation(cls, location))
            allowed = ", ".join(map(str, choices)) + near(value, choices)
            lines.append(_fault(key, value, allowed))
        elif isinstance(context.get("error"), ConfigError):  # raised by `require`
            prefix = f"{key}." if start + location else ""
            lines += [prefix + line for line in str(context["error"]).splitlines()]
        elif kind == "value_error":
            lines.append(_fault(key, value, str(context["error"])))
        else:
            allowed = _TYPES[kind].format(**context) if kind in _TYPES else error["msg"]
            lines.append(_fault(key, value, allowed))
    return lines


def _dotted(location: Location) -> str:
    """("published", 0, "metric") -> published[0].metric."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the file"


def _unknown_key(cls: type[Section], location: Location, key: str) -> str:
    section = _section(_annotation(cls, location[:-1]))
    allowed = [*section.model_fields, *(method_names() if section is Params else ())]
    return f"unknown key {key}; allowed: {', '.join(allowed)}{near(location[-1], allowed)}"


def _annotation(cls: type[Section], location: Location) -> Any:
    """The declared type of the value at a location (of the list, for an item of one)."""
    kind: Any = cls
    for part in location:
        if isinstance(part, str):
            kind = _section(kind).model_fields[part].annotation
    return kind


def _section(kind: Any) -> type[Section]:
    """The model in a type such as list[Published]."""
    while not isinstance(kind, type) or not issubclass(kind, Section):
        kind = typing.get_args(kind)[0]
    return kind


def _choices(kind: Any) -> tuple[Any, ...]:
    """The words of a type such as list[Literal["full", "half"]]."""
    while typing.get_origin(kind) is not Literal:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind)


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Section):
        return "a mapping"
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return getattr(kind, "__name__", str(kind))
