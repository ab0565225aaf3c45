"""The parts of an index, one for each finished shard, and the index that they become.

`clipzoo.frames.extraction` explains when there are parts and when there is an index.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from clipzoo.data.index import (
    FRAMES_DIR,
    INDEX_COLUMNS,
    ShardState,
    StoreError,
    count_jpegs,
    index_path,
    jpegs_header,
    jpegs_path,
    make_part,
    open_jpegs,
    part_jpegs,
    read_index,
    read_part,
    read_shards,
    write_index,
)
from clipzoo.files import replacing, wait_for_disk
from clipzoo.frames.plan import (
    SIZE_KEY,
    Finished,
    ShardJob,
    is_divided_by,
    made_with,
    plan_path,
)


def read_state(job: ShardJob) -> ShardState | None:
    """The state of a shard that is finished with the job's settings and videos, else None."""
    return _valid(job, made_with(job, read_shards(job.part_path), job.videos).get(job.shard))


def _valid(job: ShardJob, finished: Finished | None) -> ShardState | None:
    if finished is None or not set(job.videos) <= set(finished.videos()):
        return None
    if len(finished.made_from) > job.frames.shard_videos:  # all were divided again
        return None
    if job.spec.reader == "shards":
        try:
            if job.tar_path.stat().st_size != finished.state.tar_bytes:
                return None
        except OSError:
            return None
    return finished.of(job.videos)


def read_indexed(dataset: str, jobs: Sequence[ShardJob]) -> dict[int, ShardState | None]:
    """The state of each shard in the index of an earlier run; None where it has no valid one.

    All are None unless the index can be read and has these videos in these shards and no others.
    """
    finished = _indexed_shards(dataset, jobs)
    planned = {job.shard: job.videos for job in jobs}
    if {shard: f.videos() for shard, f in finished.items()} != planned or not _open_index(dataset):
        return dict.fromkeys(planned)
    return {job.shard: _valid(job, finished[job.shard]) for job in jobs}


def _indexed_shards(dataset: str, jobs: Sequence[ShardJob]) -> dict[int, Finished]:
    videos = [video for job in jobs for video in job.videos]
    return made_with(jobs[0], read_shards(index_path(dataset)), videos)


def _open_index(dataset: str) -> tuple[pa.Table, np.ndarray] | None:
    """An index and its JPEGs uint32 [F, 2], mapped; None if damaged or of another version."""
    path = index_path(dataset)
    try:
        table = read_index(path)
        return table, open_jpegs(path, int(count_jpegs(table).sum()))
    except StoreError:
        return None


def split_index(dataset: str, jobs: Sequence[ShardJob]) -> None:
    """Split the index of an earlier run into the parts of its valid shards again.

    So no shard is described by two files, one of which may be outdated. A part has all rows of its
    shard, also those of videos that the job does not have any more.
    """
    finished = _indexed_shards(dataset, jobs)
    valid = {job.shard: job for job in jobs if _valid(job, finished.get(job.shard))}
    index = _open_index(dataset) if valid else None
    if index:
        table, jpegs = index
        ends = np.concatenate([[0], np.cumsum(count_jpegs(table))])  # [N + 1]
        last = 0
        for shard, made in finished.items():
            first, last = last, last + len(made.rows)
            if shard in valid:
                part = make_part(table.slice(first, last - first), jpegs[ends[first] : ends[last]])
                write_index(part, {shard: made.state}, valid[shard].part_path, durable=False)
        # All parts are on the disk before the index is gone.
        wait_for_disk([job.part_path for job in valid.values()])
    index_path(dataset).unlink(missing_ok=True)


def merge_parts(
    dataset: str, jobs: Sequence[ShardJob], states: Mapping[int, ShardState | None]
) -> None:
    """Merge the parts of all shards, which must be valid, into the index, one after the other."""
    path, size = index_path(dataset), jobs[0].frames.shard_videos
    valid = {shard: state for shard, state in states.items() if state}
    assert len(valid) == len(jobs), "all shards are finished"
    extracted = jobs[0].spec.reader == "shards"
    num_jpegs = sum(state.num_frames for state in valid.values()) if extracted else 0
    tables = []
    with replacing(jpegs_path(path)) as new, new.open("wb") as file:
        file.write(jpegs_header(num_jpegs))
        for job in jobs:
            table, ids = read_part(job.part_path), {video.video_id for video in job.videos}
            kept = [video_id in ids for video_id in table["video_id"].to_pylist()]  # [N]
            table = table.filter(pa.array(kept, pa.bool_()))
            file.write(part_jpegs(table).tobytes())
            tables.append(table.select(list(INDEX_COLUMNS)))
    lengths = [len(t) + len(valid[job.shard].absent) for job, t in zip(jobs, tables, strict=True)]
    more = dict(jobs[0].ffmpeg)
    if not is_divided_by(size, lengths):
        more[SIZE_KEY.decode()] = str(size)
    # Written last: without it, the parts count.
    write_index(pa.concat_tables(tables).combine_chunks(), valid, path, more)


def remove_outdated(dataset: str, jobs: Sequence[ShardJob]) -> None:
    """Remove what is in the index (the plan and the parts), and shards of earlier runs."""
    plan_path(dataset).unlink(missing_ok=True)
    tar_names = {job.tar_path.name for job in jobs if job.spec.reader == "shards"}
    for path in (FRAMES_DIR / dataset).iterdir():
        if path.name.startswith("shard-") and path.name not in tar_names:
            path.unlink(missing_ok=True)
