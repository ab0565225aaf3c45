"""Raw videos -> tar shards of JPEGs and their index in data/frames/<dataset>/.

A shard holds a fixed run of videos in the order of the manifest, so its bytes depend neither on the
number of workers nor on timing. A shard and its part of the index are renamed into place when they
are complete: first the tar, then the part, which records the settings. A shard without a part, or
with one of other settings, is made again. When all parts exist, they are merged into the index
(`clipzoo.data.index`); an index that already holds all shards is left as it is. A dataset that is
read from frame files or raw videos (`reader`) has no tars, only parts.

The settings include ffmpeg's command line and version, because another ffmpeg may decode, scale or
compress differently: shards of another ffmpeg are made again. But DVC runs this stage only if a
file or parameter changes, and a new ffmpeg binary is neither. After replacing ffmpeg, run

    dvc repro --force --single-item extract_frames    # for one dataset: extract_frames@ucf101

and then `dvc repro`. The index's metadata record which ffmpeg made the frames
(`clipzoo.data.index`). Machines that share a dataset (`--shard i/n`) need the same ffmpeg: each one
treats the shards of another ffmpeg as unfinished.
"""

import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from clipzoo.config import ConfigError, FramesConfig, Params
from clipzoo.data.index import (
    FRAMES_DIR,
    INDEX_COLUMNS,
    PART_COLUMNS,
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
    read_states,
    shard_name,
    write_index,
)
from clipzoo.data.ledger import accept_command, read_ledger
from clipzoo.data.spec import DatasetSpec, load_spec, raw_root
from clipzoo.files import raise_all, replacing, write_csv
from clipzoo.frames.executors import Workers, local_processes, run_tasks
from clipzoo.frames.ffmpeg import ffmpeg_version
from clipzoo.frames.manifest import RawVideo, manifest_path, read_manifest
from clipzoo.frames.packing import describe_ffmpeg, describe_videos, pack_videos
from clipzoo.runtime.progress import progress_bar

FORMAT_VERSION = 2
VISIBLE_SECONDS = 90
"""Longer than NFS remembers that a file is missing."""


@dataclass(frozen=True)
class ShardJob:
    """One shard to make; can be pickled and sent to another process."""

    shard: int
    directory: Path
    root: Path
    """Folder that the videos' paths are relative to."""
    spec: DatasetSpec
    frames: FramesConfig
    ffmpeg: dict[str, str]
    """Of `describe_ffmpeg`; the same for all shards, so it is computed once."""
    videos: tuple[RawVideo, ...]
    base: Path = Path()
    """Folder that `directory` and `root` are relative to; absolute for a worker that may run in
    another folder. It appears neither in the shard nor in its part."""

    @property
    def tar_path(self) -> Path:
        """Path of the shard."""
        return self.base / self.directory / shard_name(self.shard)

    @property
    def part_path(self) -> Path:
        """Path of its part of the index."""
        return self.tar_path.with_suffix(".parquet")

    def fingerprint(self) -> str:
        """Hash of everything that the content of the shard depends on."""
        spec = self.spec
        settings: list[object] = [FORMAT_VERSION, spec.reader, spec.fps, spec.keep_damaged]
        settings.append(self.ffmpeg)
        if spec.reader == "shards":
            settings += [self.frames.size, self.frames.quality]
        elif spec.reader == "video":
            settings += [self.frames.size]
        else:
            settings += [spec.frame_template, spec.first_index]
        rows = [[v.video_id, v.path, v.size] for v in self.videos]
        return hashlib.sha256(json.dumps([settings, rows]).encode()).hexdigest()


@dataclass(frozen=True)
class Summary:
    """Counts of an extraction, and its failures."""

    num_videos: int
    num_frames: int
    num_bytes: int
    failures: list[list[str]]
    damaged: list[list[str]]
    num_waiting: int
    """Unfinished shards of other machines (`--shard i/n`); 0 = the index is written."""


def extract(
    params: Params,
    dataset: str,
    *,
    share: tuple[int, int] = (1, 1),
    executor: Executor | None = None,
) -> Summary:
    """Make all unfinished shards of a dataset, then its index.

    Args:
        params: `frames`, `data.demo` and `runtime` are read.
        dataset: its datasets/<name>.yaml and data/raw/<name>.csv must exist.
        share: (i, n): make every n-th shard starting with the i-th, 1 <= i <= n. The machine that
            finds all shards finished writes the index.
        executor: runs the jobs; None = as `runtime.executor` says.

    Raises:
        StoreError: videos that are not in the ledger of the copy are broken or differ from the
            manifest; lists them. Or workers died or cannot make shards. Finished shards remain.
        OSError: a file cannot be written.
        ListError, ConfigError: the manifest or the dataset's file is invalid, or the cluster of
            `runtime.scheduler` cannot be reached.
    """
    jobs = plan_shards(params, dataset)
    assigned = jobs[share[0] - 1 :: share[1]]
    ledger = read_ledger(dataset)
    states = read_indexed(dataset, jobs)
    indexed = all(states.values()) and not _unaccepted(states, ledger)
    if not indexed:
        split_index(dataset, jobs)
        states = {job.shard: read_state(job) for job in jobs}
    todo = [job for job in assigned if states[job.shard] is None]
    if _unaccepted(states, ledger):  # the cause may have been temporary: try again
        todo += [job for job in assigned if (state := states[job.shard]) and state.failures]
    if todo:
        with _workers(params, share, todo[0], executor) as workers:
            _run(todo, workers, sum(len(job.videos) for job in assigned))
        _await_parts(todo)
        states = {job.shard: read_state(job) for job in jobs}
    failures = _failures(states)
    directory = FRAMES_DIR / dataset
    write_csv(("video_id", "reason"), failures, directory / "missing.csv")
    unaccepted = _unaccepted(states, ledger)
    raise_all(
        f"{len(unaccepted)} videos cannot be read and are not in the ledger of {dataset}. Get them "
        f"again and scan again, or accept that this copy lacks them by {accept_command(dataset)}. "
        f"All that cannot be read are in {directory / 'missing.csv'}:",
        [": ".join(failure) for failure in unaccepted],
        StoreError,
    )
    if all(states.values()):
        if not indexed:
            merge_parts(dataset, jobs)
        remove_outdated(dataset, jobs)
    return _summary(jobs, states)


def plan_shards(params: Params, dataset: str) -> list[ShardJob]:
    """The shards of a dataset, in order: runs of `frames.shard_videos` lines of its manifest.

    Raises:
        ListError, ConfigError: the manifest or the dataset's file is invalid.
        StoreError: the raw root does not exist.
        OSError: ffmpeg cannot be run.
    """
    spec, root = load_spec(dataset), raw_root(params, dataset)
    videos = read_manifest(manifest_path(dataset))
    if not root.is_dir():
        raise StoreError(
            f"{root}: no such folder; put the videos of {dataset} there, or set CLIPZOO_DATA to "
            f"the folder that holds {dataset}/"
        )
    step = params.frames.shard_videos
    runs = [tuple(videos[i : i + step]) for i in range(0, len(videos), step)]
    directory = FRAMES_DIR / dataset
    ffmpeg = describe_ffmpeg(spec, params.frames)
    return [
        ShardJob(i, directory, root, spec, params.frames, ffmpeg, run) for i, run in enumerate(runs)
    ]


def make_shard(job: ShardJob, check: Callable[[], None] | None = None) -> int:
    """Make one shard and its part of the index; return its number of videos.

    Args:
        job: the shard.
        check: called before every video and before the shard is renamed into place; whatever it
            raises leaves the shard unfinished.

    Raises:
        StoreError: the ffmpeg of this machine is not the one that the job was planned with.
        OSError: a file cannot be written.
    """
    planned = job.ffmpeg.get("ffmpeg_version")  # None for `reader: directory`
    if planned and planned != ffmpeg_version():
        raise StoreError(
            f"ffmpeg: found {ffmpeg_version()!r}; the job allows {planned!r}; install that one"
        )
    job.tar_path.parent.mkdir(parents=True, exist_ok=True)
    job.part_path.unlink(missing_ok=True)  # until it is written again, the shard is unfinished
    root = job.base / job.root
    videos = _checked(job.videos, check) if check else job.videos
    if job.spec.reader == "shards":
        report = pack_videos(job.tar_path, root, videos, job.spec, job.frames)
        shard, tar_bytes = job.shard, job.tar_path.stat().st_size
    else:
        report = describe_videos(root, videos, job.spec, job.frames)
        shard, tar_bytes = -1, 0
    # Reasons name paths, ours and ffmpeg's; the index has the same ones wherever a shard is made.
    failures, damaged = (
        [[video_id, reason.replace(str(root), str(job.root))] for video_id, reason in videos]
        for videos in report[1:]
    )
    rows = report[0]
    rows = [{**row, "shard": shard} for row in rows]
    table = pa.Table.from_pylist(rows, pa.schema(list(PART_COLUMNS.items())))
    num_frames = sum(table.column("num_frames").to_pylist())
    state = ShardState(job.fingerprint(), tar_bytes, num_frames, failures, damaged)
    write_index(table, {job.shard: state}, job.part_path)
    return len(job.videos)


def _checked(videos: Sequence[RawVideo], check: Callable[[], None]) -> Iterator[RawVideo]:
    """The videos, with a check before each and after the last."""
    for video in videos:
        check()
        yield video
    check()


def read_state(job: ShardJob) -> ShardState | None:
    """State of a shard that is finished with the job's settings, else None."""
    return _valid(job, read_states(job.part_path).get(job.shard))


def _valid(job: ShardJob, state: ShardState | None) -> ShardState | None:
    if state is None or state.fingerprint != job.fingerprint():
        return None
    if job.spec.reader == "shards":
        try:
            complete = job.tar_path.stat().st_size == state.tar_bytes
        except OSError:
            complete = False
        return state if complete else None
    return state


def read_indexed(dataset: str, jobs: Sequence[ShardJob]) -> dict[int, ShardState | None]:
    """States of the shards by the index of an earlier run, None where it has no valid one.

    All are None unless the index can be read and is of these shards and no others.
    """
    states, nothing = read_states(index_path(dataset)), dict.fromkeys(job.shard for job in jobs)
    if states.keys() != nothing.keys() or _open_index(dataset) is None:
        return nothing
    return {job.shard: _valid(job, states[job.shard]) for job in jobs}


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

    So a shard is never described by two files, one of which may be outdated.
    """
    path = index_path(dataset)
    states = read_states(path)
    valid = [job for job in jobs if _valid(job, states.get(job.shard))]
    index = _open_index(dataset) if valid else None
    if index:
        table, jpegs = index
        place = {video_id: row for row, video_id in enumerate(table["video_id"].to_pylist())}
        ends = np.concatenate([[0], np.cumsum(count_jpegs(table))])  # [N + 1]
        for job in valid:
            rows = [place[v.video_id] for v in job.videos if v.video_id in place]
            first, count = (rows[0], len(rows)) if rows else (0, 0)
            assert rows == list(range(first, first + count)), "parts are merged in order"
            part = make_part(table.slice(first, count), jpegs[ends[first] : ends[first + count]])
            write_index(part, {job.shard: states[job.shard]}, job.part_path)
    path.unlink(missing_ok=True)


def merge_parts(dataset: str, jobs: Sequence[ShardJob]) -> None:
    """Merge the parts of all shards into the index, one after the other."""
    path = index_path(dataset)
    states, tables = {}, []
    for job in jobs:
        states |= read_states(job.part_path)
    extracted = jobs[0].spec.reader == "shards"
    num_jpegs = sum(state.num_frames for state in states.values()) if extracted else 0
    with replacing(jpegs_path(path)) as new, new.open("wb") as file:
        file.write(jpegs_header(num_jpegs))
        for job in jobs:
            table = read_part(job.part_path)
            file.write(part_jpegs(table).tobytes())
            tables.append(table.select(list(INDEX_COLUMNS)))
    # Written last: without it, the parts count.
    write_index(pa.concat_tables(tables).combine_chunks(), states, path, jobs[0].ffmpeg)


def remove_outdated(dataset: str, jobs: Sequence[ShardJob]) -> None:
    """Remove the parts, which are in the index, and shards and partial files of earlier runs."""
    tar_names = {job.tar_path.name for job in jobs if job.spec.reader == "shards"}
    for path in (FRAMES_DIR / dataset).iterdir():
        if path.name.startswith("shard-") and path.name not in tar_names:
            path.unlink(missing_ok=True)


def _failures(states: dict[int, ShardState | None]) -> list[list[str]]:
    return [failure for state in states.values() if state for failure in state.failures]


def _unaccepted(states: dict[int, ShardState | None], ledger: dict[str, str]) -> list[list[str]]:
    return [failure for failure in _failures(states) if failure[0] not in ledger]


def _summary(jobs: Sequence[ShardJob], states: dict[int, ShardState | None]) -> Summary:
    finished = [state for state in states.values() if state]
    num_videos = sum(len(job.videos) for job in jobs if states[job.shard])
    return Summary(
        num_videos - len(_failures(states)),
        sum(state.num_frames for state in finished),
        sum(state.tar_bytes for state in finished),
        _failures(states),
        [video for state in finished for video in state.damaged],
        len(jobs) - len(finished),
    )


def _workers(
    params: Params, share: tuple[int, int], job: ShardJob, executor: Executor | None
) -> AbstractContextManager[Workers]:
    """Where shards like `job` are made."""
    if executor:
        return nullcontext(Workers(executor.submit))
    if params.runtime.executor == "processes":
        return local_processes(params.runtime.extract_workers)
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError(
            "runtime.executor: found 'dask', whose package distributed is not installed; run "
            "`make setup` or `pip install -e '.[dask]'`, or set runtime.executor to processes"
        )
    from clipzoo.frames.cluster import dask_workers

    ffmpeg = job.ffmpeg.get("ffmpeg_version")
    return dask_workers(params.runtime.scheduler, job.root, job.directory, ffmpeg, share)


def _run(jobs: Sequence[ShardJob], workers: Workers, num_videos: int) -> None:
    """Make shards with a progress bar over all `num_videos`, some of which are finished."""
    finished = num_videos - sum(len(job.videos) for job in jobs)
    tasks = (partial(make_shard, replace(job, base=workers.base)) for job in jobs)
    with progress_bar("extract", num_videos, "video", initial=finished) as bar:
        run_tasks(tasks, workers, bar)


def _await_parts(jobs: Sequence[ShardJob]) -> None:
    """Wait until this machine sees what others wrote; NFS may lag behind by a minute.

    Raises:
        StoreError: a shard was reported as made, but is not here after VISIBLE_SECONDS.
    """
    deadline = time.monotonic() + VISIBLE_SECONDS
    for job in jobs:
        while read_state(job) is None:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{job.part_path}: was made by a worker, but is not here after "
                    f"{VISIBLE_SECONDS} s; do all workers share this folder?"
                )
            os.listdir(job.directory)  # NFS then asks its server again
            time.sleep(0.5)
