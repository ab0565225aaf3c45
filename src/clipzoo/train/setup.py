"""Set up a training run from its parameters and the outputs of earlier stages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipzoo import methods
from clipzoo.clips import selection
from clipzoo.clips.attributes import (
    ATTRIBUTES_DIR,
    TrainSentences,
    ViewSentences,
    attributes_path,
    sentence_tokens,
)
from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.sampling import check_test_sampler
from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.config import ConfigError, Params
from clipzoo.data.records import Record
from clipzoo.data.store import Store, open_store
from clipzoo.methods.parts.method import Method
from clipzoo.models.classifiers import lda_classifier
from clipzoo.models.clip import CLIP_FILE, read_clip_metadata
from clipzoo.models.text import ClassText, class_text_path, load_class_text
from clipzoo.runtime.distributed import gather_by_position, rank, world_size
from clipzoo.runtime.machine import environment
from clipzoo.train.gradients import split_settings
from clipzoo.train.plan import Plan, make_plan
from clipzoo.train.state import STATE_DIR, fingerprint


class TrainingError(ValueError):
    """Training cannot continue; the message says where and why."""


@dataclass(kw_only=True)
class Run:
    """Everything a training run needs."""

    params: Params
    device: torch.device
    method: Method
    metadata: dict[str, Any]
    """Of the model file."""
    clips: TrainClips | TrainSentences
    val_clips: ViewClips | ViewSentences
    text: ClassText
    """Of the classes trained on, on the device."""
    plan: Plan
    state_dir: Path
    log_dir: Path


def prepare_run(params: Params, device: torch.device, records: selection.TrainingRecords) -> Run:
    """Everything that `train` needs.

    Args:
        params: its parameters.
        device: of this process.
        records: of `selection.training_records`.
    """
    dataset, train_records = params.data.dataset, records.selected
    text = load_class_text(dataset, params.text.templates)
    input_px = read_clip_metadata()["input_px"]
    if params.text.classifier == "lda":
        views = _single_views(params, open_store(params, dataset), train_records, input_px)
        rows = lda_classifier(*_raw_features(params, device, views), len(text.class_names))
        text = replace(text, class_embeddings=rows)
    method, metadata = methods.new_model(params)
    _check_views(params, method)
    val_records = selection.validation_records(params, len(text.class_names), method.val_min_frames)
    if params.data.classes == "base":
        classes = selection.training_classes(dataset, "base", len(text.class_names))
        train_records = selection.of_classes(train_records, classes)
        val_records = selection.of_classes(val_records, classes)
        text = text.of_classes(classes)
    clips, val_clips = _open_clips(params, method, train_records, val_records, input_px, text)
    split = split_settings(method, params.runtime.micro_batch) if params.train.epochs else {}
    made_on = {"environment": environment(device.type)} if params.train.epochs else {}
    return Run(
        params=params,
        device=device,
        method=method.to(device),
        metadata=metadata | made_on | ({"split": split} if split else {}),
        clips=clips,
        val_clips=val_clips,
        text=text.to(device),
        plan=make_plan(params, len(train_records), records.num_all),
        state_dir=STATE_DIR / fingerprint(params, _inputs(params), split),
        log_dir=Path("plots") / params.recipe / "train",
    )


def _check_views(params: Params, method: Method) -> None:
    """Raise ConfigError if the method cannot be tested with the views that later stages take."""
    views = {"test": (params.test.clips, params.test.dense)}
    if params.data.zero_shot:
        views["zero_shot"] = (params.zero_shot.clips, False)
    for key, (clips, dense) in views.items():
        try:
            check_test_sampler(method.test_sampler, clips, dense)
        except ValueError as error:
            raise ConfigError(f"{key}.{error}") from error


def _open_clips(
    params: Params,
    method: Method,
    train_records: Sequence[Record],
    val_records: Sequence[Record],
    input_px: int,
    text: ClassText,
) -> tuple[TrainClips | TrainSentences, ViewClips | ViewSentences]:
    """The clips to train on and to validate with; of sentences, no frame is read."""
    dataset, arch = params.data.dataset, params.model.arch
    if method.inputs == "attributes":
        train_tokens, val_tokens = (
            sentence_tokens(
                records,
                attributes_path(params.model.method, dataset, name),
                method.sentence,
                arch,
                text.token_ids.shape[-1],
            )
            for name, records in (("train", train_records), ("val", val_records))
        )
        return TrainSentences(train_records, train_tokens), ViewSentences(val_records, val_tokens)
    store, augment = open_store(params, dataset), TrainTransform(input_px, params.augment)
    num_segments, sampler = params.model.num_segments, method.train_sampler
    clips = TrainClips(store, train_records, augment, num_segments, params.seed, sampler)
    return clips, _single_views(params, store, val_records, input_px, method.test_sampler)


def _inputs(params: Params) -> list[Path]:
    """Files that the trained model depends on."""
    dataset, checkpoint = params.data.dataset, params.model.checkpoint
    lists = sorted((Path("lists") / dataset).glob("*.csv"))
    others = [Path(checkpoint)] if checkpoint else []
    others += sorted((ATTRIBUTES_DIR / params.model.method / dataset).glob("*.json"))
    return [Path(CLIP_FILE), class_text_path(dataset), *lists, *others]


def _single_views(
    params: Params, store: Store, records: Sequence[Record], input_px: int, sampler: str = "first"
) -> ViewClips:
    """One clip and the centre crop of every video."""
    transform = ViewTransform(input_px, params.test.short_side_px, 1)
    return ViewClips(store, records, transform, params.model.num_segments, 1, False, sampler)


def _raw_features(params: Params, device: torch.device, views: ViewClips) -> tuple[Tensor, Tensor]:
    """The raw CLIP's video embeddings [N, D] and the labels [N] of some videos, on all ranks."""
    share = list(range(len(views.records)))[rank() :: world_size()]
    features = encode_videos(
        methods.raw_model().to(device),
        views,
        share,
        device=device,
        micro_batch=params.runtime.micro_batch,
        precision=params.test.precision,
        workers=params.runtime.workers,
    )[:, 0]  # [n, 1, D] -> [n, D]
    labels = torch.tensor([record.label for record in views.records])
    return gather_by_position(share, features), labels  # [N, D], [N]
