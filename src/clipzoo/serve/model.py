"""A trained model, used on video files.

model = clipzoo.load("models/mine")
model.predict("juggling.mp4", top=3).labels
model.predict("juggling.mp4", class_names=["juggling balls", "knitting"]).probabilities
for window in model.windows("game.mp4", every=2):
    print(window.start, window.end, window.labels[0])
model.embed("juggling.mp4") @ model.embed_text(["a man juggles"]).T
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.clips import ViewClips
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import ConfigError, ViewsConfig
from clipzoo.data.records import Record, class_name_faults
from clipzoo.data.store import Store
from clipzoo.methods.parts.method import Method
from clipzoo.models.architectures import context_length
from clipzoo.models.text import ClassText, embed_class_names, embed_tokens, tokenize
from clipzoo.serve.arguments import check_indices, checked_texts, checked_views, find_device
from clipzoo.serve.folder import ModelFolder
from clipzoo.serve.prediction import (
    Prediction,
    Scorer,
    Window,
    sampled,
)
from clipzoo.serve.seeking import Video, open_video
from clipzoo.serve.sources import read_model
from clipzoo.serve.windows import FramesAhead, Span, check_every, split_windows

MICRO_BATCH = 8
"""Clips that are encoded at once."""
NO_CLASSES = (
    "class_names: found none, and the model has none of its own; allowed: those that compete, as "
    '--class "a, b" or --classes FILE'
)
"""What is wrong with asking a CLIP that was not trained on classes for its own."""
WINDOWS_AT_ONCE = 8
"""Windows that are encoded before the first of them is returned."""


class VideoModel:
    """A model folder, ready to be used; `clipzoo.load` makes one.

    Args:
        folder: what `read_folder` returns.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, or one GPU of several, as `cuda:1`.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, folder: ModelFolder, device: str = "auto") -> None:
        self.device = find_device(device)
        self.config, self.text, self._towers = folder.config, folder.text, folder.towers
        self._trained = folder.method.to(self.device)
        self._opened: tuple[object, Video] | None = None  # the last file and its state
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

    @overload
    def predict(
        self,
        video: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        top: int = 5,
        every: None = None,
        views: tuple[int, int] | None = None,
        zero_shot: bool | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        video: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        top: int = 5,
        every: float,
        views: tuple[int, int] | None = None,
        zero_shot: bool | None = None,
    ) -> list[Window]: ...

    def predict(
        self,
        video: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        top: int = 5,
        every: float | None = None,
        views: tuple[int, int] | None = None,
        zero_shot: bool | None = None,
    ) -> Prediction | list[Window]:
        """The most likely classes of a video file, from the views of the model's own test.

        Args:
            class_names: the classes that compete; None = those that the model was trained on.
            top: how many are returned.
            every: predict each window of so many seconds instead: all of `windows` at once.
            views: numbers of temporal clips and of spatial crops; None = those of its test.
            zero_shot: whether the model is the one that zero_shot evaluates
                (`Method.for_zero_shot`), or the one that test does; None = for other classes than
                its own.

        Raises:
            VideoError: the file is missing, damaged, or not a video.
            ConfigError: the model is closed, class names are at fault, `top` is below 1, `every`
                is not above 0, or there cannot be such views.
        """
        if every is not None:
            options: dict[str, Any] = {"top": top, "views": views, "zero_shot": zero_shot}
            return list(self.windows(video, class_names, every=every, **options))
        chosen = checked_views(views)
        scorer, file = self._scorer(class_names, top, zero_shot), self._open(video)
        clips = self._clips(file, [_whole(file)], scorer.model, chosen)
        features = self._encode(clips, [0], scorer.model)
        return Prediction(**scorer(features, clips, 0, file.seconds))

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
        chosen = checked_views(views)
        scorer = self._scorer(class_names, top, zero_shot)
        parts = self._encoded(video, scorer.model, every, chosen)
        return (
            Window(**scorer(features, clips, i, seconds), start=span.start, end=span.end)
            for features, clips, i, seconds, span in parts
        )

    def duration(self, video: str | Path) -> float:
        """When the last frame of a video ends (seconds); VideoError as `predict`."""
        return self._open(video).end_seconds

    def read_frames(self, video: str | Path, indices: Sequence[int]) -> list[bytes]:
        """Some frames of a video as JPEGs, as they are stored (`frames.size`).

        Raises:
            VideoError: as `predict`.
            ConfigError: the video does not have so many frames.
        """
        file = self._open(video)
        check_indices(indices, file.num_frames, video)
        return file.read(file.name, indices) if len(indices) else []

    def pictures(self, video: str | Path, indices: Sequence[int]) -> Tensor:
        """The center crops that the model sees of some frames, uint8 [n, 3, S, S]; errors are
        those of `read_frames`."""
        about = self.config
        pixels = self._trained.pixels
        transform = ViewTransform(about.clip.input_px, about.views.short_side_px, 1, pixels)
        return transform(self.read_frames(video, indices))[0]  # [1, n, ...] -> [n, 3, S, S]

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
        file = self._open(video)
        clips = self._clips(file, [_whole(file)], self._trained)
        return _embedding(self._trained, self._encode(clips, [0], self._trained))

    def embed_windows(
        self, video: str | Path, *, every: float
    ) -> Iterator[tuple[float, float, Tensor]]:
        """Start and end (seconds) of each window, and its embedding, as `embed` gives it of a whole
        video; arguments and errors are those of `windows`."""
        check_every(every)
        model = self._trained
        parts = self._encoded(video, model, every)
        return ((span.start, span.end, _embedding(model, features)) for features, *_, span in parts)

    def embed_stored(self, store: Store, video_ids: Sequence[str]) -> Iterator[Tensor]:
        """The embedding of each video of a frame store, in order, as `embed` gives it of the file
        that the frames are from; StoreError if a frame cannot be read."""
        about, test = self.config, self.config.views
        records = [Record(name, store.videos[name].num_frames, 0) for name in video_ids]
        pixels = self._trained.pixels
        transform = ViewTransform(about.clip.input_px, test.short_side_px, test.crops, pixels)
        options = (about.num_segments, test.clips, test.dense, self._trained.test_sampler)
        clips = ViewClips(store, records, transform, *options, windows=self._trained.windows)
        for start in range(0, len(records), WINDOWS_AT_ONCE):
            positions = range(len(records))[start : start + WINDOWS_AT_ONCE]
            for features in self._encode(clips, positions, self._trained).split(1):
                yield _embedding(self._trained, features)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of N sentences as they are, without a template, [N, D] float32,
        L2-normalized. ConfigError if the model is closed, or they do not fit its text tower."""
        return self._class_text(checked_texts("texts", texts), ["{}"]).class_embeddings[0]

    def class_text(self, class_names: Sequence[str]) -> ClassText:
        """The text of any classes, in the model's templates; that of the last classes is kept.

        Raises:
            ConfigError: the model is closed, or names are empty, equal, or do not fit the text
                tower.
        """
        names = checked_texts("class_names", class_names)
        if self._other_text and self._other_text.class_names == names:
            return self._other_text
        places = [f"class {i + 1}" for i in range(len(names))]
        if faults := class_name_faults(names, places):
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

    def _scorer(
        self, class_names: Sequence[str] | None, top: int, zero_shot: bool | None
    ) -> Scorer:
        """Model and classes of a prediction; arguments and errors are those of `predict`."""
        model, text = self.method_and_text(class_names, zero_shot)
        if top < 1:
            raise ConfigError(f"top: found {top}; allowed: 1 or more")
        return Scorer(model, text, top)

    def _open(self, video: str | Path) -> Video:
        """A video file; the last one is kept, unless the file changes."""
        path = Path(video)
        state = (path.absolute(), *_state(path)) if path.is_file() else None
        if state is None or self._opened is None or self._opened[0] != state:
            self._opened = state, open_video(path, self.config.frames)
        return self._opened[1]

    def _clips(
        self,
        file: Video,
        spans: Sequence[Span],
        model: Method,
        views: ViewsConfig | None = None,
    ) -> ViewClips:
        """The views of some parts of a video."""
        about, test = self.config, self.config.views
        views = views or test
        transform = ViewTransform(
            about.clip.input_px, test.short_side_px, views.crops, model.pixels
        )
        return ViewClips(
            file,
            [Record(file.name, span.num_frames, 0, span.first_frame) for span in spans],
            transform,
            about.num_segments,
            views.clips,
            test.dense,
            model.test_sampler,
            windows=model.windows,
        )

    def _encoded(
        self, video: str | Path, model: Method, every: float, views: ViewsConfig | None = None
    ) -> Iterator[tuple[Tensor, ViewClips, int, np.ndarray, Span]]:
        """Features [1, V, ...] of each window, its clips and position in them, the times of the
        frames of the video, and the window's span."""
        file = self._open(video)
        spans = split_windows(file.seconds, file.end_seconds, every)
        clips = self._clips(file, spans, model, views)
        wanted = np.unique(np.concatenate([sampled(clips, i) for i in range(len(spans))]))
        with FramesAhead(file, wanted) as ahead:
            for start in range(0, len(spans), WINDOWS_AT_ONCE):
                some = spans[start : start + WINDOWS_AT_ONCE]
                part = replace(self._clips(file, some, model, views), store=ahead)
                features = self._encode(part, range(len(some)), model)  # [n, V, ...]
                for i, of_one in enumerate(features.split(1)):
                    yield of_one, part, i, file.seconds, some[i]

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


def _whole(file: Video) -> Span:
    return Span(0, file.num_frames, float(file.seconds[0]), file.end_seconds)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file, which change with its content."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _embedding(model: Method, features: Tensor) -> Tensor:
    """One embedding [D] of features [1, V, D] or [1, V, T, D] of a model."""
    parts = model.embedding_parts(features[0].float())  # [V, D] or [V, T, D]
    mean = parts.flatten(0, -2).mean(dim=0)  # -> [D]
    return functional.normalize(mean, dim=0)


def load(name: str | Path | None = None, device: str = "auto") -> VideoModel:
    """Load a model folder, a model of another place, or that of the last `dvc repro`; names and
    errors are those of `read_model`, or of `VideoModel`."""
    find_device(device)  # a wrong one is an error before anything is downloaded
    return VideoModel(read_model(None if name is None else str(name)), device)
