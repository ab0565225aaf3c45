"""A model that sees which color a video has, and videos of a color at each time."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import TestConfig
from clipzoo.methods.parts.method import Method
from clipzoo.models.clip import ClipMetadata
from clipzoo.models.text import ClassText
from clipzoo.serve.folder import FolderConfig, FramesOfVideos, ModelFolder
from clipzoo.serve.model import VideoModel
from tiny import Towers
from videos import CODECS, run_ffmpeg

COLORS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
NUM_SEGMENTS = 4
FRAMES = FramesOfVideos(size=16, quality=2)


class Colors(Method):
    """Features are the mean colors of frames, [b, T, 3]; classes are colors."""

    def __init__(self) -> None:
        super().__init__(Towers(nn.Identity()))
        self.num_encoded = 0

    def encode(self, inputs: Tensor) -> Tensor:
        self.num_encoded += len(inputs)
        means = inputs.float().mean(dim=(-2, -1)) / 255  # [b, T, 3, S, S] -> [b, T, 3]
        return means + 1e-3  # a black frame has a direction too

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        video = functional.normalize(features.mean(dim=2), dim=-1)  # [N, V, T, 3] -> [N, V, 3]
        return video @ text.ensemble().T  # [N, V, K]

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        return (20 * self.similarity(features, text)).softmax(dim=-1).mean(dim=1)

    def saliency(self, features: Tensor, text: ClassText) -> Tensor | None:
        cosines = functional.normalize(features, dim=-1) @ text.ensemble().T  # [N, V, T, K]
        return (10 * cosines.transpose(2, 3)).softmax(dim=-1)


def folder(method: Method | None = None, clips: int = 1, **about: Any) -> ModelFolder:
    """A closed model of the classes COLORS."""
    values = torch.tensor(list(COLORS.values()))[None]  # [P = 1, K, 3]
    token_ids = torch.zeros(1, 3, 8, dtype=torch.int64)
    text = ClassText(token_ids=token_ids, class_embeddings=values, class_names=list(COLORS))
    clip = ClipMetadata(arch="ViT-B-32", input_px=16, quick_gelu=True, source="x", environment="")
    views = TestConfig(clips=clips, crops=1, dense=False, short_side_px=16, precision="fp32")
    content = {
        "format": 1, "kind": "closed", "clip": clip, "method": "raw", "options": {},
        "num_segments": NUM_SEGMENTS, "frames": FRAMES, "views": views, "templates": ["{}"],
        "class_names": list(COLORS), "recipe": "x", "weights_sha256": "0",
        "version": version("clipzoo"), **about,
    }  # fmt: skip
    config = FolderConfig.model_validate(content)
    return ModelFolder(config=config, method=(method or Colors()).eval(), text=text, towers=None)


def model(method: Method | None = None, **about: Any) -> VideoModel:
    """The same, ready to be used."""
    return VideoModel(folder(method, **about), "cpu")


def make_colored(
    path: Path, parts: Sequence[tuple[str, float]], *options: object, fps: int = 10
) -> Path:
    """A video of (color, seconds) parts with a moving white line, after which frames differ."""
    inputs: list[object] = []
    for color, seconds in parts:
        inputs += ["-f", "lavfi", "-i", f"color={color}:size=64x48:rate={fps}:duration={seconds}"]
    total = sum(seconds for _, seconds in parts)
    inputs += ["-f", "lavfi", "-i", f"color=white:size=2x48:rate={fps}:duration={total}"]
    joined = "".join(f"[{i}]" for i in range(len(parts)))
    chain = f"{joined}concat=n={len(parts)}[all];[all][{len(parts)}]overlay=x='mod(7*n,61)'"
    run_ffmpeg(*inputs, "-filter_complex", chain, *(options or CODECS[path.suffix]), path)
    return path
