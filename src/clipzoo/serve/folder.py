"""A model folder: `config.json` and `model.safetensors`, all that is needed to use a model.

A folder is *closed*, for its own classes alone, or *open*, for any classes: then it has the text
tower too. models/model.safetensors of a run is not enough to use it, because the views, the size of
the frames, the templates and the class names lie elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from clipzoo.clips.selection import training_classes
from clipzoo.config import ConfigError, FrameSize, Params, Section, TestConfig, one_place
from clipzoo.data.records import class_name_faults
from clipzoo.data.spec import load_spec
from clipzoo.files import few, file_sha256, read_json, require_regular, write_json
from clipzoo.methods import (
    ModelDescription,
    load_model,
    read_model_metadata,
    rebuild_model,
    trained_text,
)
from clipzoo.methods.parts.method import Method
from clipzoo.models.architectures import is_elsewhere
from clipzoo.models.clip import load_clip, load_strictly, rebuild_clip
from clipzoo.models.text import SHAPES, ClassText, load_class_text, tensor_faults
from clipzoo.paths import MODEL_FILE
from clipzoo.sections import SHOWN_CHARACTERS, build, require
from clipzoo.tensors import WeightsError, read_safetensors, write_safetensors

FORMAT = 1
CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
REQUIRED = ("token_ids", "class_embeddings")
"""Tensors that every class text has."""
NOT_TEXT = ("visual.", "logit_")
"""Tensors of a CLIP that its text tower does not have."""
MAX_FPS = 1000
"""Most frames a second; ffmpeg would repeat frames to reach more."""


def _unlike(names: list[str]) -> list[str]:
    if faults := class_name_faults(names, [f"[{i}]" for i in range(len(names))]):
        raise ValueError(f"names that differ ({few(faults, separator='; ')})")
    return names


class FramesOfVideos(Section):
    """How frames are made of a video file, as the stage extract_frames makes them."""

    size: FrameSize
    """As `frames.size`."""
    quality: int = Field(ge=2, le=31)
    """As `frames.quality`."""
    fps: float | None = Field(default=None, gt=0, le=MAX_FPS)
    """Frames a second that are kept; None = every frame."""


class FolderConfig(ModelDescription):
    """The content of config.json."""

    format: int
    """The version of this form."""
    kind: Literal["closed", "open"]
    """closed: its own classes alone; open: any classes."""
    frames: FramesOfVideos
    views: TestConfig
    """The views of a test, which a prediction has too."""
    templates: list[Annotated[str, AfterValidator(one_place)]] = Field(min_length=1)
    """Prompt templates with one {} each."""
    class_names: Annotated[list[str], AfterValidator(_unlike)] = Field(min_length=1)
    """The classes that it was trained on, in label order."""
    recipe: str
    """The run that trained it."""
    weights_sha256: str
    """Digest of the file with the weights."""
    version: str
    """The version of clipzoo that wrote the folder."""

    @model_validator(mode="after")
    def _parts_agree(self) -> "FolderConfig":
        arch, side = self.clip.arch, self.views.short_side_px
        require(
            (
                not is_elsewhere(arch) or self.clip.config is not None,
                "clip.config",
                self.clip.config,
                f"the configuration of {arch}, because a folder is read without any other place",
            ),
            (
                side >= self.clip.input_px,
                "views.short_side_px",
                side,
                f"at least clip.input_px, {self.clip.input_px}",
            ),
        )
        return self


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model that was read from a folder."""

    config: FolderConfig
    method: Method
    """In evaluation mode, on the CPU."""
    text: ClassText
    """The text of its own classes, which it classifies with."""
    towers: nn.Module | None
    """A CLIP whose text tower embeds other classes; None in a closed folder, or where the method
    has its own."""


def model_of_run(params: Params) -> ModelFolder:
    """The model of the last `dvc repro`, as `read_folder` would read it from an open folder.

    Raises:
        WeightsError, ListError: the model, the CLIP weights or the class text of the run is
            missing, or is that of another run.
        ConfigError: the method reads no frames.
    """
    meta, dataset = read_model_metadata(), params.data.dataset
    if params.model.inputs != "frames":
        raise ConfigError(
            f"model.method: {meta.method} classifies the words that the stage attributes finds in "
            "a video, and not its frames; allowed: a method of frames"
        )
    method = load_model(params).requires_grad_(False)
    text = load_class_text(dataset, params.text.templates)
    trained = training_classes(dataset, params.data.classes, text.num_classes)
    text = method.class_text(trained_text(text, len(trained)))
    about = FolderConfig(
        format=FORMAT,
        kind="open",
        method=meta.method,
        options=meta.options,
        num_segments=meta.num_segments,
        clip=meta.clip,
        frames=FramesOfVideos(
            size=params.frames.size, quality=params.frames.quality, fps=load_spec(dataset).fps
        ),
        views=params.test,
        templates=params.text.templates,
        class_names=text.class_names,
        recipe=meta.recipe,
        weights_sha256=file_sha256(MODEL_FILE),
        version=version("clipzoo"),
    )
    towers = None if method.has_text_tower else load_clip()[0].requires_grad_(False)
    return ModelFolder(config=about, method=method, text=text, towers=towers)


def write_folder(model: ModelFolder, folder: str | Path, kind: Literal["closed", "open"]) -> None:
    """Write a model as a folder, which is made if it is missing.

    Raises:
        ConfigError: an open folder is asked for, and the model is closed.
        DiskError: the disk is full.
    """
    if kind == "open" and model.config.kind == "closed":
        raise ConfigError("kind: found open; allowed: closed, because the model has no text tower")
    tensors = {f"model.{name}": value for name, value in model.method.state_dict().items()}
    for name in SHAPES:
        if (value := getattr(model.text, name)) is not None:
            tensors[f"text.{name}"] = value
    if kind == "open" and model.towers is not None:
        state = model.towers.state_dict().items()
        tensors |= {f"clip.{n}": value for n, value in state if not n.startswith(NOT_TEXT)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_NAME
    write_safetensors({n: v.cpu().contiguous().clone() for n, v in tensors.items()}, weights, {})
    # The folder of a weights file on this machine concerns nobody else.
    clip = model.config.clip.model_copy(update={"source": Path(model.config.clip.source).name})
    changed = {"kind": kind, "clip": clip, "weights_sha256": file_sha256(weights)}
    about = model.config.model_copy(update=changed)
    write_json(about.model_dump(mode="json", exclude_none=True), folder / CONFIG_NAME)


def read_folder(folder: str | Path) -> ModelFolder:
    """Read a model folder.

    Raises:
        WeightsError: a file is missing or damaged, or they do not belong together.
        ConfigError: names every key of config.json that is missing or wrong.
    """
    path, weights = Path(folder) / CONFIG_NAME, Path(folder) / WEIGHTS_NAME
    content = read_json(path, WeightsError)
    found = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
    if found != FORMAT:
        raise WeightsError(
            f"{path}: format: found {repr(found)[:SHOWN_CHARACTERS]}; allowed: {FORMAT}; if "
            "another version of clipzoo wrote it, use that one, or write it again with this one"
        )
    about = build(FolderConfig, content, path)
    require_regular(weights, _incomplete)
    if (digest := file_sha256(weights)) != about.weights_sha256:
        raise WeightsError(
            f"{weights}: its sha256 is {digest}, but {path} was written with "
            f"{about.weights_sha256}; get both files again"
        )
    tensors, _ = read_safetensors(weights)
    state = _with_prefix("model.", tensors)
    model = rebuild_model(about, state, weights, described=(path, "options")).requires_grad_(False)
    text_tensors = _with_prefix("text.", tensors)
    expected = {name: SHAPES[name] for name in SHAPES if name in text_tensors or name in REQUIRED}
    if faults := tensor_faults(text_tensors, expected, {"K": len(about.class_names)}):
        raise WeightsError(f"{weights}: {'; '.join(faults)}; write the folder again")
    text = ClassText(**text_tensors, class_names=about.class_names)
    towers = None
    if clip := _with_prefix("clip.", tensors):
        towers = rebuild_clip(about.clip).requires_grad_(False)
        own = {k: v for k, v in towers.state_dict().items() if k.startswith(NOT_TEXT)}
        load_strictly(towers, {**own, **clip}, str(weights))
    elif about.kind == "open" and not model.has_text_tower:
        raise WeightsError(
            f"{path}: kind: found open; allowed: closed, because {weights} has no text tower; or "
            "write an open folder again"
        )
    return ModelFolder(config=about, method=model, text=text, towers=towers)


def _incomplete(fault: str) -> WeightsError:
    return WeightsError(
        f"{fault}; a model folder is {CONFIG_NAME} and {WEIGHTS_NAME}: get both files again, or "
        "write it with `clipzoo publish RECIPE OUT`"
    )


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
