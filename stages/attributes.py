"""attributes --dataset NAME: find the words of a lexicon that describe each video of a dataset.

A CLIP compares the words with the frames of a video; or files in the authors' form are read.

    one machine        dvc repro attributes, or
                       PYTHONPATH=src python stages/attributes.py --dataset NAME
    several machines   the last line on each of them, after
                       export NNODES=2 NODE_RANK=0 RDZV_ENDPOINT=host0:29500    (docs/clusters.md)

Prints how many videos are described by how many words, and writes data/attributes/<dataset>/.
"""

from clipzoo.runtime.launch import dataset_argument, run_stage
from clipzoo.paths import list_file


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from clipzoo.clips.attributes import attributes_path, whole_videos, write_attributes
    from clipzoo.config import load_params
    from clipzoo.data.records import read_labels, read_list
    from clipzoo.evaluate import lexicon
    from clipzoo.methods.memory.start import start_run
    from clipzoo.runtime.distributed import rank, say

    params, dataset = load_params(), dataset_argument()
    options = params.attributes
    scoring, device = start_run(lexicon.scoring_params(params), training=False)
    published = {"train": options.train_json, "val": options.val_json}
    if dataset != params.data.dataset:
        published = {"train": "", "val": ""}
    scorer = None if all(published.values()) else lexicon.open_scorer(options, dataset)
    num_classes = len(read_labels(list_file(dataset, "labels")))
    for name, file in published.items():
        path = list_file(dataset, name)
        if not path.is_file():
            continue
        records = read_list(path, num_classes)
        whole_videos(records, path)
        if scorer is None:
            say(f"attributes {dataset}: {len(records)} videos of {path}, read from {file}")
            words, note = lexicon.read_published(file, records, dataset)
            if note:
                say(f"{file}: {note}")
        else:
            say(
                f"attributes {dataset}: {len(records)} videos of {path}, the {options.top_k} best "
                f"of {len(scorer.lexicon)} words by {scoring.model.arch}, "
                f"{options.num_segments} frames each"
            )
            words = lexicon.find_attributes(
                scorer, scoring, dataset, name, records, top_k=options.top_k, device=device
            )
        if rank() == 0 and words is not None:
            write_attributes(records, words, attributes_path(dataset, name))
    say(f"wrote {attributes_path(dataset, '*')}; next: train")


if __name__ == "__main__":
    run_stage(main, distributed=True)
