"""Raw videos -> tar shards of JPEGs and their index in data/frames/<dataset>/.

A shard holds the videos that the plan gives it (`clipzoo.frames.plan`), so its bytes depend neither
on the number of workers nor on timing. A shard and its part of the index are renamed into place
when they are complete: first the tar, then the part, which records the settings. A shard without a
part, or with one of other settings or videos, is made again. When all parts exist, they are merged
into the index (`clipzoo.data.index`); an index that already holds all shards is left as it is. A
dataset that is read from frame files or raw videos (`reader`) has no tars, only parts.

The settings include ffmpeg's command line and version, because another ffmpeg may decode, scale or
compress differently: shards of another ffmpeg are made again. But DVC runs this stage only if a
file or parameter changes, and a new ffmpeg binary is neither. After replacing ffmpeg, run

    dvc repro --force --single-item extract_frames    # for one dataset: extract_frames@ucf101

and then `dvc repro`. The index's metadata record which ffmpeg made the frames
(`clipzoo.data.index`). Machines that share a dataset (`--shard i/n`) need the same ffmpeg: each one
treats the shards of another ffmpeg as unfinished.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from clipzoo.config import ConfigError, Params
from clipzoo.data.ffmpeg import ffmpeg_version
from clipzoo.data.index import (
    FAILURE_COLUMNS,
    PART_COLUMNS,
    ShardState,
    StoreError,
    failures_path,
    read_part,
    read_shards,
    write_index,
)
from clipzoo.data.ledger import ledger_path, read_ledger, reason_kind, ways_out
from clipzoo.files import raise_all, write_csv
from clipzoo.frames.executors import Workers, local_processes, run_tasks
from clipzoo.frames.manifest import RawVideo
from clipzoo.frames.packing import Report, describe_videos, is_as_scanned, pack_videos
from clipzoo.frames.parts import (
    merge_parts,
    read_indexed,
    read_state,
    remove_outdated,
    split_index,
)
from clipzoo.frames.plan import ShardJob, absent_videos, plan_shards, write_plan
from clipzoo.runtime.progress import progress_bar

VISIBLE_SECONDS = 90
"""How long to wait for a file of another machine: longer than NFS remembers that it is missing."""
Excuse = Callable[[Mapping[str, str]], Mapping[str, str]]
"""{id: reason} of failures -> {id: why} of those that do not matter."""


@dataclass(frozen=True)
class Summary:
    """Counts of an extraction, and its failures."""

    num_videos: int
    num_frames: int
    num_bytes: int
    failures: list[list[str]]
    damaged: list[list[str]]
    num_waiting: int
    """Unfinished shards of other machines (`--shard i/n`); 0 = the index has been written."""


def extract(
    params: Params,
    dataset: str,
    jobs: Sequence[ShardJob] | None = None,
    *,
    excused: Excuse | None = None,
    share: tuple[int, int] = (1, 1),
    executor: Executor | None = None,
) -> Summary:
    """Make all unfinished shards of a dataset, then its index.

    Args:
        jobs: all shards, planned by `plan_shards`; None = those of all videos of the manifest.
        excused: says which failures do not matter, as `clipzoo.annotations.wanted.excused` does;
            None = those in the ledger.
        share: (i, n): make every n-th shard starting with the i-th, 1 <= i <= n. The machine that
            finds all shards finished writes the index.
        executor: runs the jobs; None = `runtime.executor` says where they run.

    Raises:
        StoreError: videos that are not excused are broken or differ from the manifest (lists them
            all), or workers died or cannot make shards. Finished shards remain.
        OSError: a file cannot be written.
        ListError, ConfigError: the manifest, the ledger or the dataset's file is invalid, or the
            cluster of `runtime.scheduler` cannot be reached.
    """
    jobs = plan_shards(params, dataset) if jobs is None else jobs
    excused = excused or partial(_in_ledger, dataset)
    assigned = jobs[share[0] - 1 :: share[1]]
    states = read_indexed(dataset, jobs)
    indexed = all(states.values()) and not _to_retry(jobs, states, excused)
    if not indexed:
        write_plan(dataset, jobs)
        split_index(dataset, jobs)
        states = {job.shard: read_state(job) for job in jobs}
    retried = _to_retry(jobs, states, excused)
    todo = [
        replace(job, retried=retried.get(job.shard, ()))
        for job in assigned
        if states[job.shard] is None or job.shard in retried
    ]
    if todo:
        num_videos = sum(len(job.videos) for job in assigned)
        with _workers(params, share, todo[0], executor) as workers:
            _make_shards(todo, num_videos, workers)
        _await_parts(todo)
        states = {job.shard: read_state(job) for job in jobs}
    _check_failures(dataset, _failures(states), excused)
    if all(states.values()):
        if not indexed:
            merge_parts(dataset, jobs, states)
        remove_outdated(dataset, jobs)
    return _summary(jobs, states)


def _summary(jobs: Sequence[ShardJob], states: Mapping[int, ShardState | None]) -> Summary:
    """The counts and the failures of all shards, whose states are None where unfinished."""
    finished = [state for state in states.values() if state]
    failures = _failures(states)
    return Summary(
        sum(len(job.videos) for job in jobs if states[job.shard]) - len(failures),
        sum(state.num_frames for state in finished),
        sum(state.tar_bytes for state in finished),
        failures,
        [video for state in finished for video in state.damaged],
        len(jobs) - len(finished),
    )


def _make_shards(todo: Sequence[ShardJob], num_videos: int, workers: Workers) -> None:
    """Make shards; the bar counts `num_videos` videos, those of finished shards too."""
    done = num_videos - sum(len(job.videos) for job in todo)
    with progress_bar("extract", num_videos, "video", initial=done) as bar:
        tasks = (partial(make_shard, replace(job, base=workers.base)) for job in todo)
        run_tasks(tasks, workers, bar)


def _in_ledger(dataset: str, failures: Mapping[str, str]) -> dict[str, str]:
    ledger = read_ledger(dataset)
    return {video_id: "in the ledger" for video_id in failures if video_id in ledger}


def _to_retry(
    jobs: Sequence[ShardJob], states: Mapping[int, ShardState | None], excused: Excuse
) -> dict[int, tuple[RawVideo, ...]]:
    """Videos of finished shards that failed and may be readable now.

    The cause of a failure that is not excused may have been temporary. One that is excused is tried
    again only if its file was not the one in the manifest, and is now.
    """
    accepted, retried = excused(dict(_failures(states))), {}
    for job in jobs:
        state = states[job.shard]
        failed = dict(state.failures if state else ())
        again = tuple(
            video
            for video in job.videos
            if video.video_id in failed
            and (
                video.video_id not in accepted
                or (
                    reason_kind(failed[video.video_id]) in ("absent", "differs")
                    and is_as_scanned(job.root, video, job.spec)
                )
            )
        )
        if again:
            retried[job.shard] = again
    return retried


def _check_failures(dataset: str, failures: list[list[str]], excused: Excuse) -> None:
    """Write all failures to a file; refuse those that are not excused."""
    path, accepted = failures_path(dataset), excused(dict(failures))
    write_csv(FAILURE_COLUMNS, failures, path)
    refused = [failure for failure in failures if failure[0] not in accepted]
    raise_all(
        f"{len(refused)} videos of {dataset} cannot be read and are not in {ledger_path(dataset)}: "
        f"{ways_out(dataset)} (a scan makes only their own shards again). All are in {path}:",
        [": ".join(failure) for failure in refused],
        StoreError,
    )


def make_shard(job: ShardJob, check: Callable[[], None] | None = None) -> int:
    """Make one shard and its part of the index; return its number of videos.

    `check` is called before every video and before the shard is renamed into place; whatever it
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
    if job.retried and _still_fail(job, check):
        return len(job.videos)
    job.part_path.unlink(missing_ok=True)  # until it is written again, the shard is unfinished
    rows, failures, damaged = _read_videos(job, job.videos, job.tar_path, check)
    extracted = job.spec.reader == "shards"
    rows = [{**row, "shard": job.shard if extracted else -1} for row in rows]
    table = pa.Table.from_pylist(rows, pa.schema(list(PART_COLUMNS.items())))
    state = ShardState(
        job.fingerprint(),
        job.tar_path.stat().st_size if extracted else 0,
        sum(table.column("num_frames").to_pylist()),
        failures,
        damaged,
        absent_videos(job.videos, set(table.column("video_id").to_pylist())),
    )
    write_index(table, {job.shard: state}, job.part_path)
    return len(job.videos)


def _read_videos(
    job: ShardJob, videos: Sequence[RawVideo], tar_path: Path, check: Callable[[], None] | None
) -> Report:
    """Index rows without their shard, failures, damaged videos; frames are in `tar_path`."""
    root, checked = job.base / job.root, _checked(videos, check) if check else videos
    if job.spec.reader == "shards":
        report = pack_videos(tar_path, root, checked, job.spec, job.frames)
    else:
        report = describe_videos(root, checked, job.spec, job.frames)
    # Reasons name paths, ours and ffmpeg's; the index has the same ones wherever a shard is made.
    failures, damaged = (
        [[video_id, reason.replace(str(root), str(job.root))] for video_id, reason in videos]
        for videos in report[1:]
    )
    return report[0], failures, damaged


def _still_fail(job: ShardJob, check: Callable[[], None] | None) -> bool:
    """Try a finished shard's failures again; if all fail, record why, and leave the shard alone."""
    scratch = job.tar_path.with_suffix(".retried")
    rows, failures, _ = _read_videos(job, job.retried, scratch, check)
    scratch.unlink(missing_ok=True)
    if rows:
        return False
    part, (state, _) = read_part(job.part_path), read_shards(job.part_path)[job.shard]
    reasons = {**dict(state.failures), **dict(failures)}
    state = replace(state, failures=[[video_id, reasons[video_id]] for video_id in reasons])
    write_index(part, {job.shard: state}, job.part_path)
    return True


def _checked(videos: Sequence[RawVideo], check: Callable[[], None]) -> Iterator[RawVideo]:
    """The videos, with a check before each and after the last."""
    for video in videos:
        check()
        yield video
    check()


def _failures(states: Mapping[int, ShardState | None]) -> list[list[str]]:
    """[video_id, reason] for each video that could not be read."""
    return [failure for state in states.values() if state for failure in state.failures]


def _workers(
    params: Params, share: tuple[int, int], job: ShardJob, executor: Executor | None
) -> AbstractContextManager[Workers]:
    """The place in which shards like `job` are made."""
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
            os.listdir(job.directory)  # makes NFS ask its server again
            time.sleep(0.5)
