"""Which videos each shard holds.

The first plan divides the manifest into runs of `frames.shard_videos` videos, in its order. From
then on a shard keeps its videos:

    videos            1 2 3 | 4 5 6 | 7
    without 2, with 8 1   3 | 4 5 6 | 7 | 8

A video that leaves the manifest leaves the plan and the index; its frames stay in the tar until the
shard is made again. A video that is new, or comes back, goes to a new shard. A video whose path or
size changes stays where it is, and its shard is made again. One that is in the manifest, but is not
wanted any more (its annotation is gone), keeps what it has. All shards are divided again if all
must be made again anyway, because a setting or ffmpeg changed, and if `frames.shard_videos` did.

What a shard held before is in the index or, as long as there is none, in plan.parquet, which is
written before the index is removed. So machines that share a dataset (`--shard i/n`) come to the
same plan, whenever they start: a plan depends on the manifest and the one before, not on the shards
that are finished, and planning again changes nothing.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from clipzoo.config import FramesConfig, Params
from clipzoo.data.index import (
    FRAMES_DIR,
    PLAN_COLUMNS,
    ShardState,
    Source,
    StoreError,
    index_path,
    read_metadata,
    read_plan,
    read_shards,
    shard_name,
    write_index,
)
from clipzoo.data.spec import DatasetSpec, load_spec, raw_root
from clipzoo.frames.manifest import RawVideo, manifest_path, read_manifest
from clipzoo.frames.packing import describe_ffmpeg

FORMAT_VERSION = 2
SETTINGS_KEY = b"settings"
"""The metadata key of a hash of the settings that a plan's shards are made with."""
SIZE_KEY = b"shard_videos"
"""The metadata key of `frames.shard_videos`, in a plan, and in an index whose shards do not show
it."""


@dataclass(frozen=True)
class ShardJob:
    """One shard to make; can be pickled and sent to another process."""

    shard: int
    directory: Path
    root: Path
    """The folder that the videos' paths are relative to."""
    spec: DatasetSpec
    frames: FramesConfig
    ffmpeg: dict[str, str]
    """The result of `describe_ffmpeg`; the same for all shards, so it is computed once."""
    videos: tuple[RawVideo, ...]
    retried: tuple[RawVideo, ...] = ()
    """The videos of a finished shard that failed and are tried again; the shard is made again only
    if one of them can be read."""
    base: Path = Path()
    """The folder that `directory` and `root` are relative to; absolute for a worker that may run in
    another folder. It appears neither in the shard nor in its part."""

    @property
    def tar_path(self) -> Path:
        return self.base / self.directory / shard_name(self.shard)

    @property
    def part_path(self) -> Path:
        return self.tar_path.with_suffix(".parquet")

    def fingerprint(self, videos: Sequence[RawVideo] | None = None) -> str:
        """A hash of everything that the content of a shard depends on.

        Args:
            videos: what the shard is made from; None = the videos of this job.
        """
        spec, size = self.spec, str(self.frames.size)
        settings = [FORMAT_VERSION, spec.reader, spec.fps, spec.keep_damaged, self.ffmpeg]
        settings += {
            "shards": [size, self.frames.quality],
            "video": [size],
            "directory": [spec.frame_template, spec.first_index],
        }[spec.reader]
        rows = [[v.video_id, v.path, v.size] for v in (self.videos if videos is None else videos)]
        return hashlib.sha256(json.dumps([settings, rows]).encode()).hexdigest()


@dataclass(frozen=True)
class Finished:
    state: ShardState
    rows: list[Source]
    """The rows of its videos in the index."""
    made_from: list[RawVideo]
    """The videos of the job that made it."""

    def videos(self) -> tuple[RawVideo, ...]:
        """Videos that it holds or failed to read, without those that left the manifest since."""
        ids = {row.video_id for row in self.rows} | dict(self.state.failures).keys()
        return tuple(video for video in self.made_from if video.video_id in ids)

    def of(self, videos: Collection[RawVideo]) -> ShardState:
        """The state of this shard if it held no others than `videos`."""
        ids = {video.video_id for video in videos}
        rows = {row.video_id: row for row in self.rows if row.video_id in ids}
        return replace(
            self.state,
            num_frames=sum(row.num_frames for row in rows.values()),
            failures=[failure for failure in self.state.failures if failure[0] in ids],
            damaged=[damage for damage in self.state.damaged if damage[0] in ids],
            absent=absent_videos(self.made_from, rows),
        )


def absent_videos(
    made_from: Sequence[RawVideo], stored: Collection[str]
) -> list[tuple[int, str, str, int]]:
    """`ShardState.absent` of a shard that has rows of the videos `stored`."""
    return [
        (position, video.video_id, video.path, video.size)
        for position, video in enumerate(made_from)
        if video.video_id not in stored
    ]


def plan_shards(
    params: Params,
    dataset: str,
    videos: Sequence[RawVideo] | None = None,
    wanted: Collection[str] | None = None,
) -> list[ShardJob]:
    """The shards of a dataset, by number.

    Args:
        videos: the videos of the manifest; None = they are read from data/raw/<name>.csv.
        wanted: ids of the videos to extract; None = all.

    Raises:
        ListError, ConfigError: the manifest or the dataset's file is invalid.
        StoreError: the raw root does not exist, or there is nothing to extract.
        OSError: ffmpeg cannot be run.
    """
    spec, root = load_spec(dataset), raw_root(params, dataset)
    if videos is None:
        videos = read_manifest(manifest_path(dataset))
    if not root.is_dir():
        raise StoreError(
            f"{root}: no such folder; put the videos of {dataset} there, or set CLIPZOO_DATA to "
            f"the folder that holds {dataset}/"
        )
    ffmpeg = describe_ffmpeg(spec, params.frames)
    job = ShardJob(0, FRAMES_DIR / dataset, root, spec, params.frames, ffmpeg, ())
    chosen = [video for video in videos if wanted is None or video.video_id in wanted]
    runs = divide(videos, chosen, _previous(dataset, job, videos), params.frames.shard_videos)
    if not runs:
        raise StoreError(
            f"{manifest_path(dataset)}: found {len(videos)} videos, none of which is to be "
            f"extracted; do the annotation files of {dataset} name them differently?"
        )
    return [replace(job, shard=shard, videos=run) for shard, run in runs.items()]


def divide(
    videos: Sequence[RawVideo],
    wanted: Sequence[RawVideo],
    previous: Mapping[int, Sequence[RawVideo]],
    size: int,
) -> dict[int, tuple[RawVideo, ...]]:
    """The videos of each shard, in order; shards without a video are left out.

    Args:
        videos: the videos of the manifest.
        wanted: the videos to extract, in the order of the manifest. One that was wanted before
            stays in its shard as long as its file is the same.
        previous: the videos of the shards so far.
        size: the largest number of videos in a new shard.
    """
    unchanged, new = set(videos), {video.video_id: video for video in wanted}
    runs = {
        shard: tuple(
            new.pop(video.video_id, video)
            for video in members
            if video.video_id in new or video in unchanged
        )
        for shard, members in previous.items()
    }
    others, first = tuple(new.values()), max(previous, default=-1) + 1
    runs |= {first + i // size: others[i : i + size] for i in range(0, len(others), size)}
    return {shard: run for shard, run in runs.items() if run}


def _previous(
    dataset: str, job: ShardJob, videos: Sequence[RawVideo]
) -> Mapping[int, Sequence[RawVideo]]:
    """The videos of the shards so far; empty if all are to be divided again."""
    shards, size = read_shards(index_path(dataset)), job.frames.shard_videos
    if not shards:
        return _read_plan(dataset, job)
    finished = made_with(job, shards, videos)
    recorded = read_metadata(index_path(dataset)).get(SIZE_KEY)
    lengths = [len(shard.made_from) for shard in finished.values()]
    if (int(recorded) != size) if recorded else not is_divided_by(size, lengths):
        return {}
    return {number: shard.videos() for number, shard in finished.items()}


def made_with(
    job: ShardJob,
    shards: Mapping[int, tuple[ShardState, Sequence[Source]]],
    videos: Sequence[RawVideo] = (),
) -> dict[int, Finished]:
    """Finished shards, with the fingerprints that they would get today; empty if they were made
    with other settings than those of `job`.

    All shards of an index have the same settings, so one whose fingerprint is right proves those of
    all. That matters for indexes of an earlier version, which do not have the path and size of a
    video that failed: these are looked up in `videos`, those of the manifest.
    """
    known = {video.video_id: video for video in videos}
    finished = {
        shard: Finished(state, list(rows), _made_from(state, rows, known))
        for shard, (state, rows) in shards.items()
    }
    if not any(job.fingerprint(f.made_from) == f.state.fingerprint for f in finished.values()):
        return {}
    return {
        shard: replace(f, state=replace(f.state, fingerprint=job.fingerprint(f.made_from)))
        for shard, f in finished.items()
    }


def _made_from(
    state: ShardState, rows: Sequence[Source], known: Mapping[str, RawVideo]
) -> list[RawVideo]:
    """The videos of the job that made a shard, in its order."""
    videos = [RawVideo(row.video_id, row.path, row.size) for row in rows]
    for position, video_id, path, size in state.absent:
        videos.insert(position, RawVideo(video_id, path, size))
    recorded = {video_id for _, video_id, _, _ in state.absent}
    failed = [video_id for video_id, _ in state.failures if video_id not in recorded]
    if failed:  # in an index of an earlier version, whose videos are in the order of `scan`
        videos += [known[video_id] for video_id in failed if video_id in known]
        videos.sort(key=lambda video: video.path)
    return videos


def is_divided_by(size: int, lengths: Sequence[int]) -> bool:
    """Whether shards may have been made with `shard_videos` = `size`, if the numbers of the videos
    that they were made from are `lengths`."""
    longest = max(lengths, default=0)
    return longest == size or (len(lengths) < 2 and longest < size)


def plan_path(dataset: str) -> Path:
    """Path of the plan, which exists only while there is no index."""
    return FRAMES_DIR / dataset / "plan.parquet"


def write_plan(dataset: str, jobs: Sequence[ShardJob]) -> None:
    """Write which videos the shards hold, for a run that starts when the index is gone."""
    rows = [(job.shard, v.video_id, v.path, v.size) for job in jobs for v in job.videos]
    columns = dict(zip(PLAN_COLUMNS, zip(*rows, strict=True), strict=True))
    table = pa.table(columns, pa.schema(list(PLAN_COLUMNS.items())))
    size = str(jobs[0].frames.shard_videos)
    more = {SETTINGS_KEY.decode(): jobs[0].fingerprint(()), SIZE_KEY.decode(): size}
    write_index(table, {}, plan_path(dataset), more)


def _read_plan(dataset: str, job: ShardJob) -> dict[int, list[RawVideo]]:
    """The videos of the shards in an earlier run's plan; empty if it had other settings."""
    try:
        table, metadata = read_plan(plan_path(dataset))
    except StoreError:
        return {}
    settings = job.fingerprint(()).encode(), str(job.frames.shard_videos).encode()
    if (metadata.get(SETTINGS_KEY), metadata.get(SIZE_KEY)) != settings:
        return {}
    runs: dict[int, list[RawVideo]] = {}
    for row in table.to_pylist():
        video = RawVideo(row["video_id"], row["path"], row["source_size"])
        runs.setdefault(row["shard"], []).append(video)
    return runs
