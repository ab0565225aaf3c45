"""Frames for benchmarks/gpu_fed.py: a frame store that is ready, or one of made-up pictures.

They are made without ffmpeg and DVC, which a machine that is lent for an hour may lack.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg

from clipzoo.data.index import (
    INDEX_COLUMNS,
    INDEX_NAME,
    PART_COLUMNS,
    ShardState,
    jpegs_header,
    jpegs_path,
    member_name,
    part_jpegs,
    shard_name,
    write_index,
)

QUALITY = 85
NOISE = 3.5
"""Standard deviation of the noise of each frame: with it, a JPEG of 340x256 has 15 KB, as
one that ffmpeg makes with `frames.quality` 3."""


def write_frames(folder: Path, size: str, num_videos: int, num_frames: int) -> float:
    """Write a frame store of one shard, as extract_frames does.

    Args:
        folder: must not exist yet.
        size: of the frames, WxH in pixels.

    Returns:
        the mean size of a JPEG in KB.
    """
    folder.mkdir(parents=True)
    width, height = map(int, size.split("x"))
    rows = []
    tar_path = folder / shard_name(0)
    with tar_path.open("wb") as tar:
        for number in range(num_videos):
            offsets, sizes = [], []
            for i, jpeg in enumerate(jpegs(number, width, height, num_frames), start=1):
                info = tarfile.TarInfo(member_name(f"{number:03d}", i))
                info.size = len(jpeg)
                tar.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
                offsets.append(tar.tell())
                sizes.append(len(jpeg))
                tar.write(jpeg + bytes(-len(jpeg) % tarfile.BLOCKSIZE))
            rows.append(
                {"video_id": f"{number:03d}", "path": "", "source_size": 0, "shard": 0}
                | {"num_frames": num_frames, "width": width, "height": height, "fps": 30.0}
                | {"decord_fault": "", "start_seconds": 0.0, "uneven_seconds": 0.0}
                | {"offsets": offsets, "sizes": sizes}
            )
    part = pa.Table.from_pylist(rows, pa.schema(list(PART_COLUMNS.items())))
    entries, index = part_jpegs(part), folder / INDEX_NAME  # uint32 [F, 2]
    jpegs_path(index).write_bytes(jpegs_header(len(entries)) + entries.tobytes())
    state = ShardState("made up", tar_path.stat().st_size, len(entries))
    write_index(part.select(list(INDEX_COLUMNS)), {0: state}, index)
    return float(entries[:, 1].mean()) / 1e3


def jpegs(seed: int, width: int, height: int, count: int) -> Iterator[bytes]:
    """The frames of a video: a texture of all sizes that moves, with noise; baseline, 4:2:0."""
    random = np.random.default_rng(seed)
    side = height + width  # room for the movement
    texture = np.full((side, side, 3), 128, np.float32)
    for cells in (4, 8, 16, 32):
        octave = random.normal(0, 120 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        texture += cv2.resize(octave, (side, side), interpolation=cv2.INTER_CUBIC)
    for i in range(count):
        left, top = (i * speed % (side - length) for speed, length in ((1, width), (2, height)))
        picture = texture[top : top + height, left : left + width]
        picture = picture + random.normal(0, NOISE, (height, width, 1)).astype(np.float32)
        frame = np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
        yield simplejpeg.encode_jpeg(frame, QUALITY, "RGB", "420")
