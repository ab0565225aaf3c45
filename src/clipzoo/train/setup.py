"""Putting a training run together from its parameters and the outputs of the earlier stages."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.config import Params
from clipzoo.data.records import Record, read_labels, read_list, training_classes
from clipzoo.data.store import Store, open_store
from clipzoo.methods import checkpoint
from clipzoo.models.classifiers import lda_classifier
from clipzoo.models.text import class_text_path, load_class_text
from clipzoo.runtime.distributed import gather_objects, rank, world_size
from clipzoo.train.loop import Trainer, TrainingError
from clipzoo.train.plan import make_plan


def load_training_records(params: Params) -> tuple[list[Record], int, list[Record]]:
    """The videos to train on: those of the training list (or of its few-shot pick) that are of
    `data.classes` and have at least `data.min_frames` frames.

    Returns:
        the records, the number of training records of these classes before the few-shot pick, and
        the records dropped as too short; none where `train.epochs` is 0.

    Raises:
        TrainingError: no video is long enough.
    """
    lists = Path("lists") / params.data.dataset
    num_classes = len(read_labels(lists / "labels.csv"))
    if not params.train.epochs:
        return [], 0, []
    everything = read_list(lists / "train.csv", num_classes)
    picked = everything
    if params.data.shots:
        picked = read_list(lists / f"train_{params.data.shots}shot.csv", num_classes)
    classes = training_classes(params.data.dataset, params.data.classes, num_classes)
    everything, picked = ([r for r in part if r.label in classes] for part in (everything, picked))
    kept = [r for r in picked if r.num_frames >= params.data.min_frames]
    dropped = [r for r in picked if r.num_frames < params.data.min_frames]
    if not kept:
        raise TrainingError(
            f"{lists}: none of {len(picked)} training videos has data.min_frames = "
            f"{params.data.min_frames} frames or more; lower it"
        )
    return kept, len(everything), dropped


def build_trainer(
    params: Params, device: torch.device, records: list[Record], num_all: int, live: Any
) -> Trainer:
    """A run that is ready to train.

    Args:
        params: its parameters.
        device: of this process.
        records: videos to train on.
        num_all: training records before the few-shot pick.
        live: dvclive.Live on rank 0, None on the others.
    """
    dataset = params.data.dataset
    store = open_store(params, dataset)
    text = load_class_text(dataset)
    if params.text.classifier == "lda":
        features, labels = _raw_features(params, device, store, records)
        rows = lda_classifier(features, labels, len(text.class_names))
        text = dataclasses.replace(text, class_embeddings=rows)
    model, metadata = checkpoint.new_model(params)
    input_px = metadata["clip"]["input_px"]
    val_records = read_list(Path("lists") / dataset / "val.csv", len(text.class_names))
    if params.data.classes == "base":
        classes = training_classes(dataset, "base", len(text.class_names))
        records, val_records = (_of_classes(part, classes) for part in (records, val_records))
        text = text.of_classes(classes)
    augment = TrainTransform(input_px, params.augment)
    inputs = [Path(checkpoint.CLIP_FILE), class_text_path(dataset)]
    inputs += sorted((Path("lists") / dataset).glob("*.csv"))
    inputs += [Path(params.model.checkpoint)] if params.model.checkpoint else []
    return Trainer(
        params=params,
        device=device,
        model=model,
        metadata=metadata,
        clips=TrainClips(store, records, augment, params.model.num_segments, params.seed),
        val_clips=_single_views(params, store, val_records, input_px),
        text=dataclasses.replace(
            text,
            token_ids=text.token_ids.to(device),
            class_embeddings=text.class_embeddings.to(device),
        ),
        plan=make_plan(params, len(records), num_all),
        state_dir=checkpoint.STATE_DIR / checkpoint.fingerprint(params, inputs),
        live=live,
    )


def _of_classes(records: list[Record], classes: list[int]) -> list[Record]:
    """The records of some classes, whose positions in `classes` become the labels."""
    position = {label: i for i, label in enumerate(classes)}
    return [
        dataclasses.replace(record, label=position[record.label])
        for record in records
        if record.label in position
    ]


def _single_views(params: Params, store: Store, records: list[Record], input_px: int) -> ViewClips:
    """One clip and the centre crop of every video."""
    transform = ViewTransform(input_px, params.test.short_side_px, 1)
    return ViewClips(store, records, transform, params.model.num_segments, clips=1, dense=False)


def _raw_features(
    params: Params, device: torch.device, store: Store, records: list[Record]
) -> tuple[Tensor, Tensor]:
    """The raw CLIP's video embeddings [N, D] of `records` and their labels [N], on all ranks."""
    model = checkpoint.raw_model(params).to(device)
    _, clip = checkpoint.load_clip()
    share = list(range(len(records)))[rank() :: world_size()]
    features = encode_videos(
        model,
        _single_views(params, store, records, clip["input_px"]),
        share,
        device=device,
        micro_batch=params.runtime.micro_batch,
        precision=params.test.precision,
        workers=params.runtime.workers,
    )[:, 0]
    shares = gather_objects((share, features))
    order = torch.tensor([p for positions, _ in shares for p in positions]).argsort()
    labels = torch.tensor([record.label for record in records])
    return torch.cat([part for _, part in shares])[order], labels
