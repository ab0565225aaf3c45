"""build_lists: annotation files + frame index -> lists/NAME/, csv files of videos and classes.

It takes seconds on one machine and is never divided:

    dvc repro build_lists@NAME

It prints the numbers of classes and videos, what is unusual in the annotation files, and which
annotated videos have no frames. Every bad line, every duplicate and every class without videos
stops it with one list of them all.
"""

from clipzoo.runtime.launch import dataset_argument, run_stage
from clipzoo.annotations.joining import build_lists
from clipzoo.annotations.wanted import check_wanted
from clipzoo.config import load_params
from clipzoo.data.index import index_path
from clipzoo.data.spec import ANNOTATION_DIR, load_spec
from clipzoo.files import SHOWN, shown
from clipzoo.paths import LISTS_DIR


def main() -> None:
    dataset = dataset_argument()
    params, spec = load_params(), load_spec(dataset)
    print(
        f"build_lists: {ANNOTATION_DIR / dataset}, format {spec.format}, split {params.data.split}",
        flush=True,
    )
    if not index_path(dataset).exists():  # its extraction may have stopped at the annotations
        check_wanted(params, dataset, spec)
    summary = build_lists(params, dataset)
    print(
        f"{summary.num_classes} classes, {summary.num_train} train and {summary.num_val} val videos"
    )
    for note in summary.notes:
        print(shown(note))
    if summary.missing:
        print(f"{len(summary.missing)} annotated videos have no frames (in the ledger):")
    for video_id, kind, reason in summary.missing[:SHOWN]:
        print(f"  {video_id} ({kind}): {shown(reason)}")
    if len(summary.missing) > SHOWN:
        print(f"  ... and {len(summary.missing) - SHOWN} more in {LISTS_DIR / dataset}/missing.csv")
    print(f"wrote {LISTS_DIR / dataset}/; next: embed_labels {dataset}")


if __name__ == "__main__":
    run_stage(main)
