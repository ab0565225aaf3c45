"""The parameters of a run: frozen pydantic models and the only reader of params.yaml.

There are no defaults: params.yaml holds every value.

The options of a method are a top-level section with its name (`text4vis:`). This module does not
know their keys: a method is a module of `clipzoo.methods` and checks its section itself.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from clipzoo.files import near
from clipzoo.sections import Section, SectionType, build, flatten, require
from clipzoo.yaml_files import ConfigError as ConfigError
from clipzoo.yaml_files import read_yaml

SHOTS = (2, 4, 8, 16)
CROPS = (1, 3, 5, 10)
MAX_CLIPS = 1000
MAX_PX = 4096
"""Longest side of a stored frame and of the model's input: anything longer is a typing error."""
MAX_SEGMENTS = 1024
"""Most frames of a clip."""
MAX_SEED = 2**64 - 1
"""Largest seed that torch takes."""
METHODS_DIR = Path(__file__).parent / "methods"
BASE_CLASSES_DIR = Path(__file__).parent / "clips" / "base_classes"
"""Classes that some authors trained on, a list for each of their datasets."""


def method_names() -> list[str]:
    """Names of the modules in `clipzoo.methods`, sorted; imports none of them."""
    return sorted(path.stem for path in METHODS_DIR.glob("[!_]*.py"))


def _one_of(*allowed: int) -> AfterValidator:
    def check(value: int) -> int:
        if value not in allowed:
            raise ValueError(", ".join(map(str, allowed)))
        return value

    return AfterValidator(check)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{,99}")
_OUTPUT = re.compile(r"train|test|fused|zero_shot_.*|.*\.(json|safetensors|parquet)")
"""Parts of paths that stages write below metrics/<recipe>/, plots/<recipe>/, models/zoo/ and
predictions/zoo/."""


def one_place(template: str) -> str:
    """Return a prompt template; ValueError with what is allowed unless it has one {}."""
    before, place, after = template.partition("{}")
    if not place or set("{}") & set(before + after):
        raise ValueError("exactly one {} in each, and no other { or }")
    return template


SOURCE_SIZE = "source"
"""The `frames.size` of frames that are not resized."""


def _frame_size(size: object) -> object:
    """A short side as a number, also where it is quoted; an exact size as text."""
    if size == SOURCE_SIZE:
        return size
    if isinstance(size, str) and re.fullmatch(r"\d{1,4}", size, re.ASCII):
        size = int(size)
    sides: list[int] = []
    if isinstance(size, int) and not isinstance(size, bool):
        sides = [size]
    elif isinstance(size, str) and re.fullmatch(r"\d{1,4}x\d{1,4}", size, re.ASCII):
        sides = [int(side) for side in size.split("x")]
    if not sides or min(sides) < 1 or max(sides) > MAX_PX:
        raise ValueError(
            f"a short side like 256, an exact size like 340x256, or {SOURCE_SIZE}, which keeps "
            f"the videos' own sizes; sides of 1 to {MAX_PX} px"
        )
    return size


FrameSize = Annotated[int | str, BeforeValidator(_frame_size)]
"""A value of `frames.size`."""


def check_dataset_name(name: str) -> str:
    """Return a dataset's name; ValueError with what is allowed if it cannot name files.

    DVC puts names into paths that it empties before a stage runs, and into commands.
    """
    if not _NAME.fullmatch(name) or name.endswith(".csv"):
        raise ValueError(
            "1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit, not "
            "ending in .csv (data/raw/ holds a folder and a .csv of each dataset)"
        )
    return name


def check_recipe_name(name: str) -> str:
    """Return a recipe's name; ValueError with what is allowed if it cannot name folders.

    metrics/<recipe>/ and plots/<recipe>/ must not lie within what another recipe writes there.
    """
    parts = name.split("/")
    if not all(map(_NAME.fullmatch, parts)):
        raise ValueError(
            "parts of 1 to 100 letters, digits, '.', '_' and '-', each beginning with a letter or "
            "digit, with '/' between them"
        )
    if len(name) > 200 or any(map(_OUTPUT.fullmatch, parts)):
        raise ValueError(
            "200 characters, no part of which is train, test, fused or zero_shot_*, or ends in "
            ".json, .safetensors or .parquet, as the outputs of other recipes do"
        )
    return name


def _method(name: str) -> str:
    if name not in method_names():
        raise ValueError(", ".join(method_names()) + near(name, method_names()))
    return name


def _method_section(name: str) -> str:
    if name not in method_names():
        raise PydanticCustomError("extra_forbidden", "unknown key")
    return name


DatasetName = Annotated[str, AfterValidator(check_dataset_name)]
Precision = Literal["fp32", "fp16", "bf16"]
Share = Annotated[float, Field(ge=0, le=1)]


def is_file_name(weights: str) -> bool:
    """Whether `model.weights` is meant as the path of a file, not demo, random or a tag."""
    return "/" in weights or bool(Path(weights).suffix)


def _class_choice(value: str) -> str:
    allowed = ["all", "base", *sorted(path.stem for path in BASE_CLASSES_DIR.glob("*.csv"))]
    if value not in allowed:
        raise ValueError(", ".join(allowed) + near(value, allowed))
    return value


class DataConfig(Section):
    dataset: DatasetName
    """The dataset trained and tested on."""
    datasets: list[DatasetName]
    """Every dataset of the run: extracted, listed and embedded."""
    demo: list[DatasetName]
    """Datasets that make_demo renders."""
    zero_shot: list[DatasetName]
    """Datasets evaluated without training."""
    class_names: str
    """Name of a committed label file for `dataset`; '' = the one its dataset file names."""
    split: int = Field(ge=1)
    """Official split, counted from 1, of a dataset that has several."""
    shots: Annotated[int, _one_of(0, *SHOTS)]
    """Training videos per class; 0 = all."""
    classes: Annotated[str, AfterValidator(_class_choice)]
    """Which classes to train on; test measures the others too. all; base: the more frequent half;
    or the name of a committed list, a file in BASE_CLASSES_DIR."""
    min_frames: int = Field(ge=0)
    """Training videos with fewer frames are dropped."""

    @model_validator(mode="after")
    def _datasets_are_listed(self) -> "DataConfig":
        used = {"dataset": [self.dataset], "demo": self.demo, "zero_shot": self.zero_shot}
        known = self.datasets
        allowed = f"one of data.datasets: {', '.join(known)}"
        checks = ((n in known, key, n, allowed + near(n, known)) for key in used for n in used[key])
        require(*checks)
        return self


class FramesConfig(Section):
    size: FrameSize
    """Stored frame size (px): 256 = the short side, 340x256 = the exact width x height, source =
    that of each video."""
    quality: int = Field(ge=2, le=31)
    """ffmpeg's JPEG quantizer scale, 2 (best) to 31."""
    shard_videos: int = Field(ge=1)
    """Largest number of videos in one tar shard."""


class OtherArchsConfig(Section):
    """The budget of an architecture other than `demo.arch` on demo weights: it shows that the
    stages work, and no accuracy is promised."""

    pretrain_steps: int = Field(ge=1, le=10_000_000)
    """Contrastive pre-training steps."""
    pretrain_batch: int = Field(ge=1, le=100_000)
    """Still-caption pairs per pre-training step."""
    train_steps: int = Field(ge=1, le=10_000_000)
    """Optimizer steps of training."""
    eval_videos: int = Field(ge=1, le=100_000)
    """Videos per class that validations and tests encode."""


class DemoConfig(Section):
    arch: str
    """The architecture that the demo's step budgets are made for."""
    train_videos: int = Field(ge=1, le=100_000)
    """Training videos per class of the first dataset."""
    val_videos: int = Field(ge=1, le=100_000)
    """Validation videos per class of the first dataset."""
    unseen_videos: int = Field(ge=1, le=100_000)
    """Videos per class of the second dataset."""
    pretrain_steps: int = Field(ge=1, le=10_000_000)
    """Contrastive pre-training steps of the stand-in CLIP."""
    pretrain_batch: int = Field(ge=1, le=100_000)
    """Still-caption pairs per pre-training step."""
    pretrain_lr: float = Field(gt=0)
    """Peak learning rate of pre-training."""
    other_archs: OtherArchsConfig


PixelsName = Literal[
    "auto",
    "openai",
    "openai-squash",
    "half",
    "siglip",
    "clipa",
    "mobileclip",
    "mobileclip2",
    "pe",
    "imagenet",
    "imagenet-bilinear",
    "openai-linear",
]


class ModelConfig(Section):
    arch: str = Field(min_length=1)
    """An open_clip architecture (`ViT-L/14` and `ViT-L-14` are the same), or where a model of
    open_clip lies: local-dir:FOLDER or hf-hub:OWNER/NAME."""
    weights: str = Field(min_length=1)
    """demo | random | an open_clip pretrained tag | a path to a weights file | pretrained, the
    weights beside a configuration in a folder or on the hub."""
    activation: Literal["auto", "quickgelu", "gelu"]
    """The activation of towers whose weights file does not show it; auto is an error then, if the
    architecture exists with both."""
    pixels: PixelsName
    """Mean, std and resize of the input (`models.pixels.PIXELS`); auto: those of the weights, which
    is an error for a file if the tags of its architecture differ."""
    checkpoint: str
    """A model file to start from, or to evaluate when train.epochs is 0; '' = none."""
    method: Annotated[str, AfterValidator(_method)]
    """A module of `clipzoo.methods`; the section with its name holds its options."""
    inputs: Literal["frames", "attributes"]
    """What the method reads of a video: its frames, or the words of the stage `attributes`. DVC
    takes from it the folder in data/ that train and test depend on."""
    num_segments: int = Field(ge=1, le=MAX_SEGMENTS)
    """T: frames per clip, one from each equal temporal slice."""
    input_px: int = Field(ge=1, le=MAX_PX)
    """Input size (px), rounded up to a multiple of the tower's patch."""


class AttributesConfig(Section):
    """What the stage `attributes` reads: which words of a lexicon describe a video."""

    datasets: list[DatasetName]
    """Datasets, of data.datasets, whose attributes are written; [] = none."""
    lexicon: str
    """A file with one word (or more) a line to describe videos with; '' = the dataset's classes."""
    template: Annotated[str, AfterValidator(one_place)]
    """The prompt of a word of the lexicon; {} stands for it."""
    arch: str
    """An open_clip architecture that scores the words; '' = models/clip.safetensors."""
    weights: str
    """Its weights: a pretrained tag or a file; '' with arch ''."""
    num_segments: int = Field(ge=1, le=MAX_SEGMENTS)
    """Frames of a video that are scored."""
    top_k: int = Field(ge=1, le=1000)
    """Attributes written for each video."""
    train_json: str
    """Attributes of the training list of data.dataset, in the authors' form, instead of scores of
    our own; '' = none."""
    val_json: str
    """The same of the validation list."""

    @model_validator(mode="after")
    def _values_agree(self) -> "AttributesConfig":
        own_clip = bool(self.arch) == bool(self.weights)
        both = bool(self.train_json) == bool(self.val_json)
        found = (self.train_json, self.val_json)
        require(
            (own_clip, "weights", self.weights, "a tag or file with an arch; '' without one"),
            (both, "val_json", found, "files for both lists, train_json and val_json, or none"),
        )
        return self


class FusionConfig(Section):
    """What the stage `fuse` reads."""

    model_config = ConfigDict(serialize_by_alias=True)

    with_: list[Annotated[str, AfterValidator(check_recipe_name)]] = Field(
        alias="with", max_length=1
    )
    """The recipe of the video branch whose predictions are fused with those of the run; [] = no
    fusion."""
    video_weight: float = Field(ge=0, le=1)
    """The weight of the video branch's probabilities (0.7 in the paper)."""


class TextConfig(Section):
    templates: list[Annotated[str, AfterValidator(one_place)]] = Field(min_length=1)
    """Prompt templates; {} stands for the class name."""
    classifier: Literal["text", "random", "orthogonal", "lda"]
    """What the frozen classifier of the training dataset is made of; train computes lda from the
    raw CLIP's features of the training videos."""

    @model_validator(mode="after")
    def _check_classifier(self) -> "TextConfig":
        fits = self.classifier == "text" or len(self.templates) == 1
        allowed = "text, because templates has several, each with embeddings of its own"
        require((fits, "classifier", self.classifier, allowed))
        return self


class AugmentConfig(Section):
    randaugment_n: int = Field(ge=0, le=16)
    """RandAugment operations on each frame, before all else; 0 = off."""
    randaugment_m: int = Field(ge=0, le=30)
    """Magnitude of these operations."""
    short_side_px: int = Field(ge=0, le=MAX_PX)
    """Frames are resized to this short side before the crop; 0 = they keep the stored size."""
    crop: Literal["area", "multi_scale", "multi_scale_5", "random_short_side"]
    """A window of random area and aspect ratio, or one of a few scales at one of 13 places, or of 5
    with resizes that are not antialiased; or one of the input's size at a random place, after a
    resize to a random short side from short_side_px to 8/7 of it."""
    min_area: float = Field(gt=0, le=1)
    """Smallest share of the frame's area in the random crop."""
    max_area: float = Field(gt=0, le=1)
    """Largest share of the frame's area."""
    min_aspect: float = Field(gt=0)
    """Smallest aspect ratio (height / width or width / height) of the crop."""
    max_aspect: float = Field(gt=0)
    """Largest aspect ratio."""
    flip: Share
    """Probability of a horizontal flip of the whole clip."""
    color_jitter: Share
    """Probability of a clip whose frames change in brightness, contrast, saturation and hue."""
    grayscale: Share
    """Probability of turning the whole clip gray."""
    mixup_alpha: float = Field(ge=0, le=1000)
    """Mixup: clips are mixed with a share drawn from Beta(alpha, alpha); 0 = off."""
    cutmix_alpha: float = Field(ge=0, le=1000)
    """CutMix: a box of each clip, whose share of the area is drawn from Beta(alpha, alpha), is that
    of another; 0 = off. With both, one of them is drawn, each half of the time."""
    mix_group: int = Field(ge=2, le=100_000)
    """Clips that follow each other in a step, are mixed with each other, and share these draws."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of a target that is spread evenly over all classes."""

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed with each other."""
        return bool(self.mixup_alpha or self.cutmix_alpha)

    @property
    def softens_targets(self) -> bool:
        """Whether targets are soft: clips are mixed, or labels smoothed."""
        return self.mixes or self.label_smoothing > 0

    @property
    def dealt_together(self) -> int:
        """Number of clips of a step that one process encodes at once, because they are mixed."""
        return self.mix_group if self.mixes else 1

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
    epochs: int = Field(ge=0, le=1_000_000)
    """0 = no training: the checkpoint (or the bare CLIP) is evaluated as it is."""
    warmup_epochs: int = Field(ge=0)
    """Epochs of linear warm-up."""
    warmup_start_share: Share
    """Where the warm-up starts, as a share of the peak rate."""
    batch_size: int = Field(ge=1, le=1_000_000)
    """Clips in one optimizer step, over all processes and micro-batches."""
    lr: float = Field(gt=0)
    """Peak learning rate of the head."""
    tower_lr_ratio: float = Field(ge=0)
    """CLIP's parameters (the towers that are trained, and logit_scale) learn at
    lr * tower_lr_ratio; the authors' configs call it `clip_ratio`."""
    weight_decay: float = Field(ge=0)
    """AdamW's weight decay."""
    decay_vectors: bool
    """Whether weights of one dimension (norms, biases) decay too; all others always do."""
    beta1: float = Field(ge=0, lt=1)
    """AdamW's decay of the mean gradient."""
    beta2: float = Field(ge=0, lt=1)
    """AdamW's decay of the mean squared gradient."""
    eps: float = Field(gt=0)
    """AdamW's epsilon, added to the root of the mean squared gradient."""
    schedule: Literal["cosine", "cosine_from_start", "multistep", "constant"]
    """Learning rate schedule after the warm-up. cosine begins where the warm-up ends;
    cosine_from_start at the first step, so that the rate falls at once where the warm-up ends."""
    min_lr_share: Share
    """Where a cosine ends, as a share of the peak rate."""
    milestones: list[float]
    """Epochs at which the multistep schedule multiplies the rate by `gamma`."""
    gamma: float = Field(gt=0)
    """Factor of the multistep schedule."""
    steps_per_lr_update: int = Field(ge=1)
    """Optimizer steps between two changes of the learning rate (10 in Text4Vis)."""
    precision: Precision
    """Precision of the forward pass, under autocast; the weights are float32."""
    average_epochs: int = Field(ge=0)
    """Save the mean of the weights after each of the last N epochs (all, if fewer); 0 = off."""
    raw_clip_share: Share
    """Share of the raw CLIP in the vision tower and logit_scale of the model that is saved at the
    end, after the mean over epochs; 0 = as trained. Validations see what is trained."""
    interpolated_loss_weight: float = Field(ge=0, le=1000)
    """Weight of the gradient at weights between the raw CLIP's and those trained, which is added
    to each step's; 0 = off."""
    interpolated_share: float = Field(gt=0, le=1)
    """Largest share of the raw CLIP in these weights; each step draws one."""
    grad_clip: float = Field(ge=0)
    """Largest gradient norm; 0 = off."""
    activation_checkpointing: bool
    """Recompute activations in the backward pass: less memory, more time."""
    compile: bool
    """Compile the vision tower (torch.compile): faster on a GPU, other rounding."""
    fused: bool
    """AdamW in one kernel: faster on a GPU, other rounding."""
    val_precision: Precision
    """Precision of the validations during training, under autocast."""
    val_every: int = Field(ge=1)
    """Epochs between two validations; the last epoch always validates."""
    select: Literal["last", "best"]
    """Which epoch's weights are saved."""
    checkpoint_every: int = Field(ge=1)
    """Optimizer steps between two resume points."""

    @model_validator(mode="after")
    def _epochs_agree(self) -> "TrainConfig":
        last = not self.average_epochs or self.select == "last"
        fits = not self.epochs or self.warmup_epochs <= self.epochs
        times = self.milestones if self.epochs and self.schedule == "multistep" else []
        rising = times == sorted(times) and min(times, default=math.inf) > self.warmup_epochs
        at_most = (
            f"at most train.epochs, {self.epochs}; set both in one command: "
            f"-S train.epochs={self.epochs} -S train.warmup_epochs=0"
        )
        after = f"ascending, each after the warm-up of {self.warmup_epochs} epochs"
        ends = not self.min_lr_share or self.schedule in ("cosine", "cosine_from_start")
        require(
            (last, "select", self.select, "last, because train.average_epochs is not 0"),
            (fits, "warmup_epochs", self.warmup_epochs, at_most),
            (rising, "milestones", times, after),
            (ends, "min_lr_share", self.min_lr_share, "0, because the schedule is not a cosine"),
        )
        return self


class ViewsConfig(Section):
    """The views of a video whose scores are combined, clips x crops of them."""

    clips: int = Field(ge=1, le=MAX_CLIPS)
    """Temporal clips per video."""
    crops: Annotated[int, _one_of(*CROPS)]
    """Spatial crops per clip."""


class TestConfig(ViewsConfig):
    dense: bool
    """Clips are dense 128-frame windows instead of one frame from each segment."""
    short_side_px: int = Field(ge=1, le=MAX_PX)
    """Frames are resized to this short side before the crops."""
    precision: Precision
    """Precision of the forward pass, under autocast."""


class ZeroShotConfig(ViewsConfig):
    protocols: list[Literal["full", "half", "splits", "listed", "fixed_halves"]] = Field(
        min_length=1
    )
    """full: all classes; half: 10 seeded halves of the classes; splits: the test videos of each
    official split; listed: all classes, without videos in neither set of data.split; fixed_halves:
    10 halves of other seeds, on these videos."""
    interpolation: list[Share]
    """Also evaluate vision towers with the weights (1 - alpha) raw + alpha fine-tuned, for each of
    these alpha; [] = off."""


class RuntimeConfig(Section):
    processes: int = Field(ge=0, le=1024)
    """torchrun processes on this machine; 0 = one for each GPU, 2 on a CPU."""
    workers: int = Field(ge=0, le=1024)
    """Loaders of each process: 1 = a thread, more = processes of their own; 0 = chosen for the
    machine."""
    micro_batch: int = Field(ge=0, le=1_000_000)
    """Clips that a process encodes at once; 0 = chosen for the machine."""
    device: Literal["auto", "cpu", "cuda"]
    """auto: a GPU if one is available."""
    max_restarts: int = Field(ge=0)
    """Times that train, test and zero_shot are restarted after a process or machine was lost."""
    extract_workers: int = Field(ge=0, le=1024)
    """Extraction processes; 0 = one for each core."""
    executor: Literal["processes", "dask"]
    """Where extraction runs: processes of this machine, or the workers of a Dask cluster."""
    scheduler: str
    """Address of the Dask scheduler, tcp://host:8786, for `executor: dask`."""
    launcher: str
    """A command under which train, test and zero_shot start themselves on every machine of a job
    (srun --ntasks-per-node=1); '' = they run here."""

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

    recipe: Annotated[str, AfterValidator(check_recipe_name)]
    """Name of the run: metrics/<recipe>/ and plots/<recipe>/."""
    seed: int = Field(ge=0, le=MAX_SEED)
    """Seed of every random choice, combined with the epoch, video or class."""
    data: DataConfig
    frames: FramesConfig
    demo: DemoConfig
    model: ModelConfig
    attributes: AttributesConfig
    fusion: FusionConfig
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
        processes, group = self.runtime.processes, self.augment.dealt_together
        groups = math.ceil(self.train.batch_size / group)
        mixed = self.augment.mixes
        of_step = f"train.batch_size{' / augment.mix_group' if mixed else ''}, {groups}"
        each = "a group of mixed clips" if mixed else "a clip"
        described = self.attributes.datasets
        side, needed = self.augment.short_side_px, self.model.input_px
        require(
            (
                self.augment.crop != "random_short_side" or side >= needed,
                "augment.short_side_px",
                side,
                f"at least model.input_px, {needed}, because of augment.crop: random_short_side",
            ),
            (
                set(described) <= set(self.data.datasets),
                "attributes.datasets",
                described,
                f"names of data.datasets: {', '.join(self.data.datasets)}",
            ),
            (
                self.model.inputs == "frames" or self.data.dataset in described,
                "attributes.datasets",
                described,
                f"a list with {self.data.dataset}, because model.inputs is attributes",
            ),
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
                "text, because of data.classes: novel classes have only their names",
            ),
            (
                not self.train.epochs or processes <= groups,
                "runtime.processes",
                processes,
                f"at most {of_step}: each process needs {each} of every step",
            ),
        )
        return self

    @classmethod
    def keys(cls) -> list[str]:
        return [*super().keys(), *method_names()]

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


OLD_KEYS = {
    "data.allow_missing": "nothing: what a copy of the videos lacks is now in a ledger, which "
    "`clipzoo missing DATASET --accept` writes",
    "demo.other_pretrain_steps": "demo.other_archs.pretrain_steps",
    "demo.other_pretrain_batch": "demo.other_archs.pretrain_batch",
    "demo.other_train_steps": "demo.other_archs.train_steps",
    "demo.other_videos": "demo.other_archs.eval_videos",
    "bike.zero_shot": "bike.zero_shot_scoring",
    "bike.map_softmaxes": "bike.authors_map_softmaxes",
    "bike.map_running_batch": "bike.authors_running_map_batch",
    **{f"bike_attributes.{key}": f"attributes.{key}" for key in AttributesConfig.model_fields},
    "bike_attributes.fused_with": "fusion.with",
    "bike_attributes.video_weight": "fusion.video_weight",
    "actionclip.eval_batch": "actionclip.authors_test_batch",
    "train.clip_ratio": "train.tower_lr_ratio",
    "train.update_every": "train.steps_per_lr_update",
}
"""Dotted keys of earlier versions -> what to write instead."""


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        ConfigError: the file is missing or not YAML, or keys are unknown, missing, mistyped or out
            of range; the message names the file and every wrong key.
    """
    values = read_yaml(path)
    refuse_old_keys(values, path)
    return build(Params, values, path)


def refuse_old_keys(values: object, where: str | Path) -> None:
    """Raise ConfigError if parameters, nested or by dotted key, have keys of `OLD_KEYS`; it names
    `where`, the file or option, each such key and what to write instead."""
    keys = flatten(values).keys() & OLD_KEYS if isinstance(values, Mapping) else []
    old = [f"{key} is a key of an earlier version; write {OLD_KEYS[key]}" for key in sorted(keys)]
    if old:
        raise ConfigError(f"{where}: " + "\n  ".join(old))


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
