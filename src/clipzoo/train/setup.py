"""Set up a training run from its parameters and the outputs of earlier stages."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipzoo import methods
from clipzoo.clips import selection
from clipzoo.clips.clips import check_views
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.inputs import TrainingClips, Views
from clipzoo.config import ConfigError, Params
from clipzoo.methods.parts.method import Method
from clipzoo.models.classifiers import lda_classifier
from clipzoo.models.text import ClassText, class_text_path, load_class_text
from clipzoo.paths import CLIP_FILE, LISTS_DIR, plots_dir
from clipzoo.runtime.distributed import gather_by_position, rank, world_size
from clipzoo.runtime.machine import environment
from clipzoo.train.dealing import split_settings
from clipzoo.train.gradients import StepGradients
from clipzoo.train.plan import Plan, make_plan
from clipzoo.train.raw_clip import Interpolation
from clipzoo.train.state import TRAIN_STATE_DIR, fingerprint


class TrainingError(ValueError):
    """Training cannot continue; the message says where and why."""


@dataclass(kw_only=True)
class Run:
    """Everything a training run needs."""

    params: Params
    device: torch.device
    method: Method
    metadata: dict[str, Any]
    """The metadata of the model file."""
    clips: TrainingClips
    val_clips: Views
    text: ClassText
    """The class text of the classes trained on, on the device."""
    plan: Plan
    state_dir: Path
    log_dir: Path


def prepare_run(params: Params, device: torch.device, records: selection.TrainingRecords) -> Run:
    """Everything that `train` needs for records that `selection.training_records` has chosen."""
    dataset, train_records = params.data.dataset, records.selected
    text = load_class_text(dataset, params.text.templates)
    if params.text.classifier == "lda":
        raw = methods.raw_model()
        views = raw.open_inputs(params, dataset, text).views(train_records, "train")
        rows = lda_classifier(*_embed(raw, params, device, views), len(text.class_names))
        text = replace(text, class_embeddings=rows)
    method, metadata = methods.new_model(params)
    _check_views(params, method)
    check_classifier(params, method)
    check_targets(params, method)
    val_records = selection.validation_records(params, len(text.class_names), method.val_min_frames)
    if params.data.classes != "all":
        classes = selection.training_classes(dataset, params.data.classes, len(text.class_names))
        train_records = selection.of_classes(train_records, classes)
        val_records = selection.of_classes(val_records, classes)
        text = text.of_classes(classes)
    if params.train.epochs or not params.model.checkpoint:
        method.start_training(text)
    inputs = method.open_inputs(params, dataset, text)
    split = split_settings(method, params.runtime.micro_batch) if params.train.epochs else {}
    made_on = {"environment": environment(device.type)} if params.train.epochs else {}
    return Run(
        params=params,
        device=device,
        method=method.to(device),
        metadata=metadata | made_on | ({"split": split} if split else {}),
        clips=inputs.training(train_records),
        val_clips=inputs.views(val_records, "val"),
        text=text.to(device),
        plan=make_plan(params, len(train_records), records.num_all),
        state_dir=TRAIN_STATE_DIR / fingerprint(params, [*_files(params), *inputs.files], split),
        log_dir=plots_dir(params.recipe, "train"),
    )


def _check_views(params: Params, method: Method) -> None:
    """Raise ConfigError if the method cannot be tested with the views that later stages take."""
    views = {"test": (params.test.clips, params.test.dense)}
    if params.data.zero_shot:
        views["zero_shot"] = (params.zero_shot.clips, False)
    for key, (clips, dense) in views.items():
        try:
            check_views(method.test_sampler, method.windows, clips, dense)
        except ValueError as error:
            raise ConfigError(f"{key}.{error}") from error


def check_classifier(params: Params, method: Method) -> None:
    """Raise ConfigError if the rows of a classifier would be replaced by a trained text tower's."""
    if method.has_text_tower and params.text.classifier != "text":
        raise ConfigError(
            f"text.classifier: found {params.text.classifier}; allowed: text, because model.method "
            f"{params.model.method}, with these options, has a text tower of its own"
        )


def check_targets(params: Params, method: Method) -> None:
    """Raise ConfigError if clips or targets would be mixed for a loss that takes single classes."""
    if method.takes_soft_targets or not params.train.epochs:
        return
    for key in ("mixup_alpha", "cutmix_alpha", "label_smoothing"):
        if value := getattr(params.augment, key):
            raise ConfigError(
                f"augment.{key}: found {value}; allowed: 0, because the loss of model.method "
                f"{params.model.method}, with these options, does not take soft targets"
            )


def step_gradients(
    params: Params,
    method: Method,
    text: ClassText,
    device: torch.device,
    scaler: torch.amp.GradScaler,
    raw: Mapping[str, Tensor],
) -> StepGradients:
    """What computes the gradients of the steps of a run.

    Args:
        raw: the raw CLIP (`raw_clip.raw_tensors`), for a run with a second gradient.
    """
    settings, interpolation = params.train, None
    if settings.interpolated_loss_weight:
        interpolation = Interpolation(
            model=method,
            raw=raw,
            loss_weight=settings.interpolated_loss_weight,
            share=settings.interpolated_share,
            seed=params.seed,
        )
    return StepGradients(
        method,
        text,
        device=device,
        precision=settings.precision,
        scaler=scaler,
        seed=params.seed,
        mixing=params.augment if params.augment.softens_targets else None,
        interpolation=interpolation,
    )


def _files(params: Params) -> list[Path]:
    """The files that every trained model depends on."""
    dataset, checkpoint = params.data.dataset, params.model.checkpoint
    lists = sorted((LISTS_DIR / dataset).glob("*.csv"))
    others = [Path(checkpoint)] if checkpoint else []
    return [CLIP_FILE, class_text_path(dataset), *lists, *others]


def _embed(
    model: Method, params: Params, device: torch.device, views: Views
) -> tuple[Tensor, Tensor]:
    """The video embeddings [N, D] and the labels [N] of some videos, on all processes."""
    share = list(range(len(views.records)))[rank() :: world_size()]
    features = encode_videos(
        model.to(device),
        views,
        share,
        device=device,
        micro_batch=params.runtime.micro_batch,
        precision=params.test.precision,
        workers=params.runtime.workers,
    )[:, 0]  # [n, 1, D] -> [n, D]
    labels = torch.tensor([record.label for record in views.records])
    return gather_by_position(share, features), labels  # [N, D], [N]
