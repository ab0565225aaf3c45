"""make_demo: render a demo dataset, which stands in for videos and annotations of your own.

    one machine    dvc repro make_demo@demo_shapes
                   or  PYTHONPATH=src python stages/make_demo.py --dataset demo_shapes

Prints the number of videos and a progress bar; all cores render. Writes data/raw/<dataset>/ (video
files in three formats), the manifest data/raw/<dataset>.csv, and data/annotations/<dataset>/ in the
form of a published dataset. The same version of this program writes the same bytes everywhere.
"""

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
    root, annotations = Path("data/raw") / dataset, Path("data/annotations") / dataset
    with process_pool(processes) as executor:
        finished = write_videos(videos, root, executor)
        for _ in tqdm(finished, total=len(videos), desc="render", unit="video", mininterval=2):
            pass
    manifest = write_manifest(videos, root)
    write_annotations(dataset, videos, annotations)
    print(f"wrote {root}/, {manifest}, {annotations}/; next: extract_frames {dataset}")


if __name__ == "__main__":
    run_stage(main)
