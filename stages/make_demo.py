"""make_demo --dataset NAME: render a demo dataset: video files, manifest and annotation files."""

import os
from pathlib import Path

from tqdm import tqdm

from clipzoo.runtime.launch import dataset_argument, run_stage
from clipzoo.config import load_params
from clipzoo.demo.annotation import plan_videos, write_annotations, write_manifest, write_videos
from clipzoo.runtime.pools import process_pool


def main() -> None:
    params, dataset = load_params(), dataset_argument()
    videos = plan_videos(dataset, params.demo)
    processes = params.runtime.extract_workers or os.cpu_count() or 1
    classes = len({video.action for video in videos})
    print(
        f"make_demo {dataset}: {len(videos)} videos of {classes} classes, {processes} processes",
        flush=True,
    )
    root = Path("data/raw") / dataset
    with process_pool(processes) as executor:
        finished = write_videos(videos, root, executor)
        for _ in tqdm(finished, total=len(videos), desc="render", unit="video", mininterval=2):
            pass
    manifest = write_manifest(videos, root)
    annotations = Path("data/annotations") / dataset
    write_annotations(dataset, videos, annotations)
    print(f"wrote {root}/, {manifest}, {annotations}/; next: extract_frames {dataset}")


if __name__ == "__main__":
    run_stage(main)
