"""extract_frames: raw videos -> data/frames/NAME/, tar shards of JPEGs and their index.

On one machine:

    dvc repro extract_frames@NAME

On n machines that share the folder, start on the i-th of them, and run `dvc repro` when all have
finished, which merges their shards into one index; or name a Dask cluster (docs/clusters.md):

    PYTHONPATH=src python stages/extract_frames.py --dataset NAME --shard i/n

It prints what is extracted and from where, shows a progress bar over the videos, names those that
could not be read and those that are damaged but kept, and ends with the numbers of videos, frames
and failures. After an interruption it continues with the shards that are missing.
"""

import argparse
from functools import partial

from clipzoo.runtime.launch import run_stage
from clipzoo.annotations.wanted import excused, wanted_videos
from clipzoo.config import ConfigError, load_params
from clipzoo.data.index import FRAMES_DIR, index_path, read_index
from clipzoo.data.spec import load_spec, raw_root
from clipzoo.files import SHOWN, shown
from clipzoo.frames.extraction import extract
from clipzoo.frames.manifest import manifest_path, read_manifest
from clipzoo.frames.plan import plan_shards


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="i/n",
        help="make every n-th shard starting with the i-th, to share the work among machines",
    )
    arguments = parser.parse_args()
    dataset, share = arguments.dataset, read_share(arguments.shard)
    params = load_params()
    spec, manifest = load_spec(dataset), read_manifest(manifest_path(dataset))
    ids = [video.video_id for video in manifest]
    wanted, notes = wanted_videos(params, dataset, spec, ids)
    for note in notes:
        print(f"note: {note}")
    jobs = plan_shards(params, dataset, manifest, set(wanted))
    settings = (
        f"size {params.frames.size}, quality {params.frames.quality}, fps {spec.fps or 'all'}"
    )
    if spec.reader != "shards":
        settings = f"no extraction, reader: {spec.reader}; index only"
    print(
        f"extract_frames: {sum(len(job.videos) for job in jobs)} videos of "
        f"{raw_root(params, dataset)} in {len(jobs)} shards ({settings}), part {arguments.shard}",
        flush=True,
    )
    excuse = partial(excused, params, dataset, spec, ids)
    summary = extract(params, dataset, jobs, excused=excuse, share=share)
    reasons = excuse(dict(summary.failures))
    for video_id, reason in summary.failures:
        print(f"skipped {video_id}: {shown(reason)} ({shown(reasons[video_id])})")
    for video_id, reason in summary.damaged:
        print(f"damaged, kept {video_id}: {shown(reason)}")
    print(
        f"{summary.num_videos} videos, {summary.num_frames} frames, "
        f"{summary.num_bytes / 1e6:.1f} MB, {len(summary.failures)} failures"
    )
    if spec.reader == "video" and not summary.num_waiting:
        print_faults(dataset)
    if summary.num_waiting:
        print(f"{summary.num_waiting} shards of other machines are missing; next: run their parts")
    else:
        print(f"wrote {FRAMES_DIR / dataset}/; next: build_lists {dataset}")


def print_faults(dataset: str) -> None:
    """Print which videos are read by ffmpeg instead of decord, and why."""
    table = read_index(index_path(dataset), ["video_id", "decord_fault"])
    slow = [(row["video_id"], row["decord_fault"]) for row in table.to_pylist()]
    slow = [(video_id, fault) for video_id, fault in slow if fault]
    if slow:
        print(
            f"{len(slow)} of {table.num_rows} videos are not read by decord but by ffmpeg, from "
            f"their start; `reader: shards` in datasets/{dataset}.yaml reads all of them faster:"
        )
    for video_id, fault in slow[:SHOWN]:
        print(f"  {video_id}: {shown(fault)}")
    if len(slow) > SHOWN:
        print(f"  ... and {len(slow) - SHOWN} more in column decord_fault of {index_path(dataset)}")


def read_share(text: str) -> tuple[int, int]:
    """'i/n' -> (i, n)."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard: found {text!r}; allowed: i/n with 1 <= i <= n, like 2/8")
    return int(number), int(count)


if __name__ == "__main__":
    run_stage(main)
