"""A trained model, used on video files.

model = clipzoo.load("models/mine")
model.predict("juggling.mp4", top=3).labels
model.predict("juggling.mp4", class_names=["juggling balls", "knitting"]).probabilities
model.embed("juggling.mp4") @ model.embed_text(["a man juggles"]).T
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.clips import ViewClips
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import ConfigError
from clipzoo.data.records import Record, class_name_faults
from clipzoo.methods.parts.method import Method
from clipzoo.models.architectures import context_length
from clipzoo.models.text import ClassText, embed_class_names, embed_tokens, tokenize
from clipzoo.serve.folder import ModelFolder
from clipzoo.serve.sources import read_model
from clipzoo.serve.video_file import VideoFile

MICRO_BATCH = 8
"""Clips that are encoded at once."""
NO_CLASSES = (
    "class_names: found none, and the model has none of its own; allowed: those that compete, as "
    '--class "a, b" or --classes FILE'
)
"""What is wrong with asking a CLIP that was not trained on classes for its own."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one video, the most likely class first."""

    labels: list[str]
    """Class names."""
    probabilities: list[float]
    """Their probabilities among all classes, 0 to 1."""
    cosines: list[float]
    """The mean over views of their cosines with the video, -1 to 1."""
    frames: list[int]
    """The frames that the model saw, of all its clips, from 0, ascending."""
    seconds: list[float]
    """When these are shown."""


class VideoModel:
    """A model folder, ready to be used; `clipzoo.load` makes one.

    Args:
        folder: what `read_folder` returns.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
    """

    def __init__(self, folder: ModelFolder, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.config, self.text, self._towers = folder.config, folder.text, folder.towers
        self._trained = folder.method.to(self.device)
        self._other_text: ClassText | None = None  # of the last classes asked for

    @property
    def class_names(self) -> list[str]:
        """The classes that the model was trained on."""
        return self.config.class_names

    @property
    def is_open(self) -> bool:
        """Whether it can score classes other than its own."""
        return self.config.kind == "open"

    @cached_property
    def _zero_shot(self) -> Method:
        return self._trained.for_zero_shot().to(self.device).eval().requires_grad_(False)

    def predict(
        self,
        video: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        top: int = 5,
        views: tuple[int, int] | None = None,
        zero_shot: bool | None = None,
    ) -> Prediction:
        """The most likely classes of a video file, from the views of the model's own test.

        Args:
            class_names: the classes that compete; None = those that the model was trained on.
            top: how many are returned.
            views: numbers of temporal clips and of spatial crops; None = those of its test.
            zero_shot: whether the model is the one that zero_shot evaluates
                (`Method.for_zero_shot`), or the one that test does; None = for other classes than
                its own.

        Raises:
            VideoError: the file is missing, damaged, or not a video.
            ConfigError: the model is closed, class names are at fault, or `top` is below 1.
        """
        if top < 1:
            raise ConfigError(f"top: found {top}; allowed: 1 or more")
        model, text = self.method_and_text(class_names, zero_shot)
        clips = self._clips(video, model, views)
        features = self._encode(clips, model)  # [1, V, ...]
        with torch.no_grad():
            probabilities = model.score(features, text)[0]  # [1, K] -> [K]
            cosines = model.similarity(features, text)[0].mean(dim=0)  # [1, V, K] -> [K]
        order = probabilities.argsort(descending=True, stable=True)[:top].tolist()
        file: VideoFile = clips.store  # pyright: ignore[reportAssignmentType]
        frames = sorted(set(clips.sample(file.num_frames).flatten().tolist()))
        return Prediction(
            labels=[text.class_names[k] for k in order],
            probabilities=[float(probabilities[k]) for k in order],
            cosines=[float(cosines[k]) for k in order],
            frames=frames,
            seconds=[round(float(file.seconds[i]), 6) for i in frames],
        )

    def method_and_text(
        self, class_names: Sequence[str] | None = None, zero_shot: bool | None = None
    ) -> tuple[Method, ClassText]:
        """What scores videos, and the text of the classes that compete.

        Arguments and errors are those of `predict`.
        """
        own = class_names is None
        if own and not self.class_names:
            raise ConfigError(NO_CLASSES)
        model = self._zero_shot if (not own if zero_shot is None else zero_shot) else self._trained
        return model, self.text if class_names is None else self.class_text(class_names)

    def embed(self, video: str | Path) -> Tensor:
        """One embedding of a video file, [D] float32, L2-normalized: the mean over views, and over
        frames where the method compares these. Errors are those of `predict`."""
        model = self._trained
        features = self._encode(self._clips(video, model), model)[0]  # [V, D] or [V, T, D]
        mean = features.float().flatten(0, -2).mean(dim=0)  # -> [D]
        return functional.normalize(mean, dim=0)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of N sentences as they are, without a template, [N, D] float32,
        L2-normalized. ConfigError if the model is closed, or they do not fit its text tower."""
        return self._class_text(list(texts), ["{}"]).class_embeddings[0]

    def class_text(self, class_names: Sequence[str]) -> ClassText:
        """The text of any classes, in the model's templates; that of the last classes is kept.

        Raises:
            ConfigError: the model is closed, or names are empty, equal, or do not fit the text
                tower.
        """
        names = list(class_names)
        if self._other_text and self._other_text.class_names == names:
            return self._other_text
        places = [f"class {i + 1}" for i in range(len(names))]
        faults = class_name_faults(names, places) if names else ["class_names: found none"]
        if faults:
            raise ConfigError("; ".join(faults))
        self._other_text = self._class_text(names, self.config.templates)
        return self._other_text

    @torch.no_grad()
    def _class_text(self, names: list[str], templates: list[str]) -> ClassText:
        about = self.config
        if not self.is_open:
            raise ConfigError(
                "class_names: the model is closed, without a text tower; allowed: its own "
                f"{len(about.class_names)} classes, or an open folder of it"
            )
        if self._towers is None:  # the method has a text tower of its own
            arch, texts = about.clip.arch, [t.format(name) for t in templates for name in names]
            token_ids = tokenize(arch, texts, context_length(arch))  # [P K, L]
            text = ClassText(
                token_ids=token_ids.unflatten(0, (len(templates), len(names))),  # [P, K, L]
                class_embeddings=torch.empty(0),
                class_names=names,
            )
            return self._trained.class_text(text.to(self.device)).to("cpu")
        text = embed_class_names(self._towers, about.clip.arch, names, templates)
        if self.text.token_embeddings is not None and templates == about.templates:
            text = replace(text, token_embeddings=embed_tokens(self._towers, text))
        return text

    def _clips(
        self, video: str | Path, model: Method, views: tuple[int, int] | None = None
    ) -> ViewClips:
        about, test = self.config, self.config.views
        num_clips, num_crops = views or (test.clips, test.crops)
        file = VideoFile(video, about.frames)
        transform = ViewTransform(about.clip.input_px, test.short_side_px, num_crops, model.pixels)
        return ViewClips(
            file,
            [Record(file.name, file.num_frames, 0)],
            transform,
            about.num_segments,
            num_clips,
            test.dense,
            model.test_sampler,
        )

    def _encode(self, clips: ViewClips, model: Method) -> Tensor:
        """Features [1, V, ...] float32, on the CPU."""
        precision = self.config.views.precision if self.device.type == "cuda" else "fp32"
        return encode_videos(
            model,
            clips,
            [0],
            device=self.device,
            micro_batch=MICRO_BATCH,
            precision=precision,
            workers=1,
        ).float()


def load(name: str | Path, device: str = "auto") -> VideoModel:
    """Load a model folder, or a model of another place; names and errors are those of
    `read_model`."""
    return VideoModel(read_model(str(name)), device)
