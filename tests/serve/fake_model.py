"""A model that costs nothing, for the tests of the page."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from clipzoo.config import ConfigError
from clipzoo.serve.folder import FramesOfVideos
from clipzoo.serve.video_file import VideoFile


@dataclass
class FakeModel:
    """In the place of a VideoModel: it reads videos, but each class scores half of the one before;
    the classes move by one place in every window."""

    class_names: list[str] = field(default_factory=lambda: ["yoga", "archery", "knitting"])
    is_open: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    """A prediction waits for it; it is open unless a test clears it."""
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Is released when a prediction starts."""
    asked: list[tuple[Path, Sequence[str] | None]] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    """How many predictions ran when each started."""

    def __post_init__(self) -> None:
        self.gate.set()
        self._running = 0
        frames = FramesOfVideos(size=48, quality=3)
        clip = SimpleNamespace(arch="ViT-fake")
        self.config = SimpleNamespace(recipe="demo/fake", clip=clip, frames=frames)

    def predict(self, video: Path, names: Sequence[str] | None, *, top: int) -> SimpleNamespace:
        self.asked.append((video, names))
        self._running += 1
        self.at_once.append(self._running)
        self.started.release()
        try:
            assert self.gate.wait(30)
            if names is not None and not self.is_open:
                raise ConfigError("class_names: the model is closed")
            file = VideoFile(video, self.config.frames)
            frames = sorted({round(i) for i in np.linspace(0, file.num_frames - 1, 8)})
            return self._scored(names, top, 0, frames, file)
        finally:
            self._running -= 1

    def windows(
        self, video: Path, names: Sequence[str] | None, *, every: float, top: int
    ) -> Iterator[SimpleNamespace]:
        file = VideoFile(video, self.config.frames)
        for number in range(round(float(file.seconds[-1]) / every)):
            found = self._scored(names, top, number, [0], file)
            found.start, found.end = number * every, (number + 1) * every
            yield found

    def duration(self, video: Path) -> float:
        return VideoFile(video, self.config.frames).end_seconds

    def read_frames(self, video: Path, indices: Sequence[int]) -> list[bytes]:
        file = VideoFile(video, self.config.frames)
        return file.read(file.name, indices)

    def _scored(
        self,
        names: Sequence[str] | None,
        top: int,
        shift: int,
        frames: list[int],
        file: VideoFile,
    ) -> SimpleNamespace:
        labels = list(names or self.class_names)
        labels = labels[shift % len(labels) :] + labels[: shift % len(labels)]
        weights = 0.5 ** np.arange(1, len(labels) + 1)
        return SimpleNamespace(
            labels=labels[:top],
            probabilities=(weights / weights.sum()).tolist()[:top],
            cosines=weights.tolist()[:top],
            frames=frames,
            seconds=[float(file.seconds[i]) for i in frames],
        )
