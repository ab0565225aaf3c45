"""A trained model, used on video files.

model = clipzoo.load("models/mine")
model.predict("juggling.mp4", top=3).labels
model.predict("juggling.mp4", class_names=["juggling balls", "knitting"]).probabilities
model.embed("juggling.mp4") @ model.embed_text(["a man juggles"]).T
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.clips import SINGLE_VIEW, ViewClips
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import ConfigError
from clipzoo.data.records import Record, class_name_faults
from clipzoo.methods.parts.method import Method
from clipzoo.models.architectures import context_length
from clipzoo.models.text import ClassText, embed_class_names, embed_tokens, tokenize
from clipzoo.serve.folder import ModelFolder, read_folder
from clipzoo.serve.video_file import VideoFile
from clipzoo.serve.windows import FramesAhead, Span, check_every, split_windows

MICRO_BATCH = 8
"""Clips that are encoded at once."""
WINDOWS_AT_ONCE = 32
"""Windows that are encoded before the first of them is returned: loading overlaps with it."""


@dataclass(frozen=True, kw_only=True)
class FrameWeights:
    """How much each class looks at each frame, where the method compares these with classes."""

    frames: list[int]
    """The T frames of the first clip, in its order; frames of a short video appear repeatedly."""
    by_label: list[list[float]]
    """T weights for each label of the prediction, in its order, of the center crop; they sum to
    1."""


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
    weights: FrameWeights | None = None
    """The weights of frames; None if the method has none."""


@dataclass(frozen=True, kw_only=True)
class Window(Prediction):
    """What a model says of one window of a long video."""

    start: float
    """When the window begins (seconds)."""
    end: float
    """When it ends."""


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
        self._trained = _with_weights(folder.method).to(self.device)
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
        model, text = self._classifier(class_names, top, zero_shot)
        file = self._open(video)
        whole = Span(0, file.num_frames, float(file.seconds[0]), file.end_seconds)
        clips = self._clips(file, [whole], model, views)
        return Prediction(
            **self._scored(self._encode(clips, [0], model), clips, 0, text, model, top)
        )

    def windows(
        self,
        video: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        every: float,
        top: int = 5,
        views: tuple[int, int] | None = None,
        zero_shot: bool | None = None,
    ) -> Iterator[Window]:
        """The most likely classes of each window of a long video, in order.

        A window is predicted as a video of its own; `split_windows` says which frames it has. The
        memory that this takes does not grow with the video, but for the times of its frames.

        Args:
            every: the length of a window (seconds).
            class_names, top, views, zero_shot: as for `predict`.

        Raises:
            ConfigError: as `predict`, or `every` is not above 0; before the first window.
            VideoError: as `predict`; perhaps after some windows.
        """
        check_every(every)
        model, text = self._classifier(class_names, top, zero_shot)
        parts = self._encoded(video, model, every, views)
        return (
            Window(**self._scored(features, clips, i, text, model, top), start=s.start, end=s.end)
            for features, clips, i, s in parts
        )

    def read_frames(self, video: str | Path, indices: Sequence[int]) -> list[bytes]:
        """Some frames of a video as JPEGs, as they are stored (`frames.size`); VideoError as
        `predict`."""
        file = self._open(video)
        return file.read(file.name, indices)

    def frame_weights(
        self, video: str | Path, class_names: Sequence[str] | None = None, **options: Any
    ) -> "FrameWeights | None":
        """The `weights` of `predict`, with its arguments."""
        return self.predict(video, class_names, **options).weights

    def embed(self, video: str | Path) -> Tensor:
        """One embedding of a video file, [D] float32, L2-normalized: the mean over views, and over
        frames where the method compares these. Errors are those of `predict`."""
        file = self._open(video)
        whole = Span(0, file.num_frames, 0.0, file.end_seconds)
        clips = self._clips(file, [whole], self._trained)
        return _embedding(self._encode(clips, [0], self._trained))

    def embed_windows(
        self, video: str | Path, *, every: float
    ) -> Iterator[tuple[float, float, Tensor]]:
        """Start and end (seconds) of each window, and its embedding, as `embed` gives it of a whole
        video; arguments and errors are those of `windows`."""
        check_every(every)
        parts = self._encoded(video, self._trained, every, None)
        return ((s.start, s.end, _embedding(features)) for features, _, _, s in parts)

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

    def _classifier(
        self, class_names: Sequence[str] | None, top: int, zero_shot: bool | None
    ) -> tuple[Method, ClassText]:
        """The model and the class text of a prediction; arguments and errors are its own."""
        if top < 1:
            raise ConfigError(f"top: found {top}; allowed: 1 or more")
        own = class_names is None
        model = self._zero_shot if (not own if zero_shot is None else zero_shot) else self._trained
        return model, self.text if class_names is None else self.class_text(class_names)

    def _open(self, video: str | Path) -> VideoFile:
        return VideoFile(video, self.config.frames)

    def _clips(
        self,
        file: VideoFile,
        spans: Sequence[Span],
        model: Method,
        views: tuple[int, int] | None = None,
    ) -> ViewClips:
        """The views of some parts of a video."""
        about, test = self.config, self.config.views
        num_clips, num_crops = views or (test.clips, test.crops)
        transform = ViewTransform(about.clip.input_px, test.short_side_px, num_crops, model.pixels)
        return ViewClips(
            file,
            [Record(file.name, span.num_frames, 0, span.first_frame) for span in spans],
            transform,
            about.num_segments,
            num_clips,
            test.dense,
            model.test_sampler,
        )

    def _encoded(
        self, video: str | Path, model: Method, every: float, views: tuple[int, int] | None
    ) -> Iterator[tuple[Tensor, ViewClips, int, Span]]:
        """Features [1, V, ...] of each window, its clips, its position in them, and its span."""
        file = self._open(video)
        spans = split_windows(file.seconds, file.end_seconds, every)
        clips = self._clips(file, spans, model, views)
        wanted = np.unique(np.concatenate([_sampled(clips, i) for i in range(len(spans))]))
        with FramesAhead(file, wanted) as ahead:
            ahead_clips = replace(clips, store=ahead)
            for start in range(0, len(spans), WINDOWS_AT_ONCE):
                positions = range(len(spans))[start : start + WINDOWS_AT_ONCE]
                features = self._encode(ahead_clips, positions, model)  # [n, V, ...]
                for i, of_one in zip(positions, features.split(1), strict=True):
                    yield of_one, clips, i, spans[i]

    def _encode(self, clips: ViewClips, positions: Sequence[int], model: Method) -> Tensor:
        """Features [n, V, ...] float32, on the CPU."""
        precision = self.config.views.precision if self.device.type == "cuda" else "fp32"
        return encode_videos(
            model,
            clips,
            positions,
            device=self.device,
            micro_batch=MICRO_BATCH,
            precision=precision,
            workers=1,
        ).float()

    @torch.no_grad()
    def _scored(
        self,
        features: Tensor,
        clips: ViewClips,
        position: int,
        text: ClassText,
        model: Method,
        top: int,
    ) -> dict[str, Any]:
        """The fields of a prediction, of the features [1, V, ...] of a video or window."""
        probabilities = model.score(features, text)[0]  # [1, K] -> [K]
        cosines = model.similarity(features, text)[0].mean(dim=0)  # [1, V, K] -> [K]
        order = probabilities.argsort(descending=True, stable=True)[:top].tolist()
        frames = _sampled(clips, position)
        file: VideoFile = clips.store  # pyright: ignore[reportAssignmentType]
        return {
            "labels": [text.class_names[k] for k in order],
            "probabilities": [float(probabilities[k]) for k in order],
            "cosines": [float(cosines[k]) for k in order],
            "frames": frames.tolist(),
            "seconds": [round(float(file.seconds[i]), 6) for i in frames],
            "weights": _frame_weights(features, clips, position, text.of_classes(order), model),
        }


def _sampled(clips: ViewClips, position: int) -> np.ndarray:
    """The frames of all clips of a video or window, int64, ascending, without repeats."""
    record = clips.records[position]
    return np.unique(clips.sample(record.num_frames)) + record.start_frame


def _frame_weights(
    features: Tensor, clips: ViewClips, position: int, text: ClassText, model: Method
) -> FrameWeights | None:
    """The weights that classes give the frames of one view of `features` [1, V, ...]."""
    view = clips.view_names.index(SINGLE_VIEW)
    if features.dim() < 4:  # the method combines the frames before it looks at classes
        return None
    weights = model.saliency(features[:, view : view + 1], text)  # [1, 1, K, T]
    if weights is None:
        return None
    record = clips.records[position]
    frames = clips.sample(record.num_frames)[0] + record.start_frame  # [T]
    return FrameWeights(frames=frames.tolist(), by_label=weights[0, 0].tolist())


def _embedding(features: Tensor) -> Tensor:
    """One embedding [D] of features [1, V, D] or [1, V, T, D]."""
    mean = features[0].float().flatten(0, -2).mean(dim=0)  # -> [D]
    return functional.normalize(mean, dim=0)


def _with_weights(method: Method) -> Method:
    """The method, asked for the weights of frames if it has an option for that."""
    options: Any = getattr(method, "options", None)
    if hasattr(options, "saliency"):
        # They are extra output, which changes no score.
        setattr(method, "options", options.model_copy(update={"saliency": True}))  # noqa: B010
    return method


def load(folder: str | Path, device: str = "auto") -> VideoModel:
    """Load a model folder; errors are those of `read_folder`."""
    return VideoModel(read_folder(folder), device)
