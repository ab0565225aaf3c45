"""extract_frames DATASET [--shard i/n]: raw videos -> data/frames/DATASET/ (shards and index)."""

import argparse

from clipzoo.config import ConfigError, load_params
from clipzoo.data.spec import load_spec, raw_root
from clipzoo.data.store import FRAMES_DIR
from clipzoo.frames.extraction import extract, plan_shards
from clipzoo.runtime.launch import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="i/n",
        help="make every n-th shard from the i-th on, to split the work over machines by hand",
    )
    arguments = parser.parse_args()
    dataset, share = arguments.dataset, read_share(arguments.shard)
    params = load_params()
    jobs, spec = plan_shards(params, dataset), load_spec(dataset)
    how = f"size {params.frames.size}, quality {params.frames.quality}, fps {spec.fps or 'all'}"
    how = how if spec.reader == "shards" else f"no extraction, reader: {spec.reader}; index only"
    print(
        f"extract_frames: {sum(len(job.videos) for job in jobs)} videos of "
        f"{raw_root(params, dataset)} in {len(jobs)} shards ({how}), part {arguments.shard}",
        flush=True,
    )
    done = extract(params, dataset, share=share)
    for video_id, reason in done.failures:
        print(f"left out {video_id}: {reason}")
    for video_id, reason in done.damaged:
        print(f"damaged, kept {video_id}: {reason}")
    print(
        f"{done.num_videos} videos, {done.num_frames} frames, {done.num_bytes / 1e6:.1f} MB, "
        f"{len(done.failures)} failures"
    )
    if done.num_waiting:
        print(f"{done.num_waiting} shards of other machines are missing; next: run their parts")
    else:
        print(f"wrote {FRAMES_DIR / dataset}/; next: build_lists {dataset}")


def read_share(text: str) -> tuple[int, int]:
    """'i/n' -> (i, n)."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard: found {text!r}; allowed: i/n with 1 <= i <= n, like 2/8")
    return int(number), int(count)


if __name__ == "__main__":
    run_stage(main)
