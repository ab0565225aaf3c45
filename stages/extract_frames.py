"""extract_frames --dataset NAME [--shard i/n]: raw videos -> data/frames/NAME/: shards, index."""

import argparse
from functools import partial

from clipzoo.runtime.launch import run_stage
from clipzoo.annotations.wanted import excused, wanted_videos
from clipzoo.config import ConfigError, load_params
from clipzoo.data.index import FRAMES_DIR, index_path, read_index
from clipzoo.data.spec import load_spec, raw_root
from clipzoo.files import shown
from clipzoo.frames.extraction import extract
from clipzoo.frames.manifest import manifest_path, read_manifest
from clipzoo.frames.plan import plan_shards

MOST_FAULTS = 20
"""Printed; the index has all of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    wanted, notes = wanted_videos(params, dataset, spec, manifest)
    for note in notes:
        print(f"note: {note}")
    jobs = plan_shards(params, dataset, manifest, wanted)
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
    excuse = partial(excused, params, dataset, spec, manifest)
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
    columns = (table.column(name).to_pylist() for name in table.column_names)
    slow = [(video_id, fault) for video_id, fault in zip(*columns, strict=True) if fault]
    if slow:
        print(
            f"{len(slow)} of {table.num_rows} videos are not read by decord but by ffmpeg, from "
            f"their start; `reader: shards` in datasets/{dataset}.yaml reads all of them faster:"
        )
    for video_id, fault in slow[:MOST_FAULTS]:
        print(f"  {video_id}: {shown(fault)}")
    if len(slow) > MOST_FAULTS:
        print(f"  ... (column decord_fault of {index_path(dataset)})")


def read_share(text: str) -> tuple[int, int]:
    """'i/n' -> (i, n)."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard: found {text!r}; allowed: i/n with 1 <= i <= n, like 2/8")
    return int(number), int(count)


if __name__ == "__main__":
    run_stage(main)
