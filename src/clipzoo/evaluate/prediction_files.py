"""What prediction files say of their videos, checked. Does not import torch.

`evaluate.predictions.save` writes predictions/<set>.safetensors, whose metadata is `About`, and
predictions/<set>.parquet, of which a row is a `PredictedVideo`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pyarrow import parquet
from pydantic import BeforeValidator, ConfigDict, Field, field_validator
from safetensors import safe_open

from clipzoo.data.records import videos_sha256
from clipzoo.files import ListError, require_regular
from clipzoo.recorded import VideoSet
from clipzoo.sections import Section, build

AGAIN = "run the recipe that wrote it again (`clipzoo zoo RECIPE --again`)"


def _ids(text: object) -> list[str]:
    try:
        ids = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, list) or not all(isinstance(video_id, str) for video_id in ids):
        raise ValueError("a JSON list of video ids")
    return ids


class About(VideoSet):
    """Metadata of a prediction file, which is all text."""

    model_sha256: str
    recipe: str = ""
    """Name of the run; '' = an older version wrote the file."""
    train_video_ids: Annotated[list[str] | None, BeforeValidator(_ids)] = None
    """The ids of the rows of train_probabilities; None = `score_training` was false."""

    @field_validator("num_videos", "num_expected", mode="before")
    @classmethod
    def _whole_number(cls, text: object) -> int:
        if not isinstance(text, str) or not text.isdecimal() or len(text) > 9:
            raise ValueError("a whole number, as text")
        return int(text)


class PredictedVideo(Section):
    """One row of a table of predictions."""

    model_config = ConfigDict(extra="ignore")
    video_id: str
    label: Any
    """Id of the class; in multi-label sets all ids as text, separated by `;`."""
    pos: int
    """Position of the row."""
    class_name: str = Field(alias="class")
    predicted: str
    probability: float = Field(ge=0, le=1.001)
    rank: int | None
    """The rank of the true class, from 1; None = the video has none."""


COLUMNS = [field.alias or name for name, field in PredictedVideo.model_fields.items()]


def read_about(metadata: Mapping[str, str], path: Path) -> About:
    """The metadata of a prediction file; ConfigError names the file and every wrong key."""
    return build(About, dict(metadata), path, "metadata", again=AGAIN)


def read_videos(path: Path) -> list[PredictedVideo]:
    """The rows of a table of predictions.

    Raises:
        ListError: it is not a parquet file.
        ConfigError: names the first row with missing or wrong values.
    """
    require_regular(path)
    try:
        with parquet.ParquetFile(path) as file:
            present = [name for name in COLUMNS if name in file.schema_arrow.names]
            rows = file.read(present, use_threads=False).to_pylist()
    except (OSError, ValueError, ArithmeticError, pa.ArrowException) as error:
        raise ListError(f"{path}: cannot be read as parquet ({error}); {AGAIN}") from error
    return [
        build(PredictedVideo, row, path, f"row {number}", again=AGAIN)
        for number, row in enumerate(rows)
    ]


def check_videos(videos: Sequence[PredictedVideo], table: Path, about: Mapping[str, str]) -> None:
    """Raise ListError unless a table has the videos, and the order, of the tensors beside it, whose
    file has the metadata `about`."""
    path = table.with_suffix(".safetensors")
    expected = read_about(about, path)
    digest = videos_sha256(video.video_id for video in videos)
    found, allowed = (len(videos), digest), (expected.num_videos, expected.videos_sha256)
    if found != allowed or any(video.pos != i for i, video in enumerate(videos)):
        raise ListError(
            f"{table}: found {len(videos)} videos, fingerprint {digest[:12]}; {path} has "
            f"{expected.num_videos}, fingerprint {expected.videos_sha256[:12]}, in the order of "
            f"`pos`: the two were not written together; {AGAIN}"
        )


def read_checked(table: Path) -> list[PredictedVideo]:
    """`read_videos`; and `check_videos`, if the file with the tensors is beside the table."""
    videos, path = read_videos(table), table.with_suffix(".safetensors")
    if path.exists():
        require_regular(path)
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
        except Exception as error:
            raise ListError(f"{path}: not a safetensors file ({error}); {AGAIN}") from error
        check_videos(videos, table, metadata)
    return videos
