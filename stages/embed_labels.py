"""embed_labels --dataset NAME: turn class names into the text that videos are compared with.

Every class name is put into every prompt template, cut into tokens and embedded by the text tower.

    one machine        dvc repro embed_labels, or
                       PYTHONPATH=src python stages/embed_labels.py --dataset NAME

Prints the number of prompts and a progress bar, and writes data/text/<dataset>.safetensors.
"""

import dataclasses
import json

from clipzoo.runtime.launch import dataset_argument, run_stage
from clipzoo.config import load_params
from clipzoo.data.records import read_labels
from clipzoo.files import file_sha256
from clipzoo.methods import needs_token_embeddings
from clipzoo.models.classifiers import random_classifier
from clipzoo.models.clip import load_clip
from clipzoo.models.text import class_text_path, embed_class_names, embed_tokens, save_class_text
from clipzoo.paths import CLIP_FILE, list_file
from clipzoo.runtime.progress import progress_bar


def main() -> None:
    params, dataset = load_params(), dataset_argument()
    names = read_labels(list_file(dataset, "labels"))
    classifier = params.text.classifier if dataset == params.data.dataset else "text"
    clip, meta = load_clip()
    print(
        f"embed_labels {dataset}: {len(names)} classes x {len(params.text.templates)} templates, "
        f"text tower of {meta['arch']}, classifier {classifier}",
        flush=True,
    )
    with_tokens = needs_token_embeddings(params)
    total = (len(params.text.templates) + with_tokens) * len(names)
    with progress_bar(f"embed_labels {dataset}", total, "prompt") as bar:
        text = embed_class_names(
            clip, meta["arch"], names, params.text.templates, say=bar.write, advance=bar.update
        )
        if with_tokens:
            tokens = embed_tokens(clip, text, advance=bar.update)
            text = dataclasses.replace(text, token_embeddings=tokens)
    if classifier in ("random", "orthogonal"):  # lda is computed by train
        rows = random_classifier(
            len(names),
            text.class_embeddings.shape[-1],
            params.seed,
            orthogonal=classifier == "orthogonal",
        )
        text = dataclasses.replace(text, class_embeddings=rows)
    path = class_text_path(dataset)
    save_class_text(
        text,
        path,
        arch=meta["arch"],
        weights_sha256=file_sha256(CLIP_FILE),
        templates=json.dumps(params.text.templates, ensure_ascii=False),
        classifier=classifier,
    )
    print(f"wrote {path}: class embeddings {list(text.class_embeddings.shape)}; next: train")


if __name__ == "__main__":
    run_stage(main)
