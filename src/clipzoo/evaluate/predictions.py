"""What test and zero_shot write of a set of videos: metrics, predictions and videos.csv."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from clipzoo.clips import selection
from clipzoo.clips.selection import MeasuredSet
from clipzoo.config import Params
from clipzoo.data.records import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    SPLIT_COLUMNS,
    Record,
    missing_path,
    read_missing,
    videos_sha256,
)
from clipzoo.evaluate import metrics
from clipzoo.evaluate.protocols import Evaluation, compare_zero_shot
from clipzoo.evaluate.provenance import record_provenance
from clipzoo.evaluate.scoring import score_set
from clipzoo.files import ListError, file_sha256, read_rows, replacing, write_csv, write_metrics
from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText
from clipzoo.paths import CLIP_FILE, list_file, metrics_file, plots_dir, predictions_file
from clipzoo.recorded import RAW_COLUMN, SINGLE_COLUMN, VIDEOS_COLUMNS, VIDEOS_FILE
from clipzoo.runtime.distributed import say
from clipzoo.tensors import write_safetensors


@dataclass(frozen=True, kw_only=True)
class TrainingScores:
    """What a model says of the training videos; the weight of a fusion is chosen on it."""

    probabilities: Tensor
    """[N, K] float32."""
    labels: Tensor
    """[N] int64."""
    video_ids: list[str]
    """The ids of the rows."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that a stage writes of one set of videos."""

    name: str
    """`test` or `zero_shot_<dataset>`, the name of the files."""
    videos: MeasuredSet
    described: Mapping[str, int | str]
    """What identifies the videos (`describe_set`)."""
    evaluation: Evaluation
    raw: Evaluation | None = None
    """The same of the raw CLIP; None in tests."""
    interpolated: Mapping[str, float] = field(default_factory=dict)
    """The metrics of mixed weights (`interpolation.describe_choice`)."""
    saliency: Tensor | None = None
    """How much each class looks at each frame, [N, K, T]; None = the method does not provide it."""
    training: TrainingScores | None = None
    """What the model says of the training videos; None = not asked for."""

    def values(self) -> dict[str, float]:
        """The metrics."""
        values = self.evaluation.values
        if self.raw is not None:
            values = compare_zero_shot(self.evaluation, self.raw)
        return {**values, **self.interpolated}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the prediction file, by name."""
        found = {
            "labels": self.evaluation.scored.labels,
            "features": self.evaluation.scored.features,
            "probabilities": self.evaluation.probabilities,
        }
        if self.raw is not None:
            found["raw_features"] = self.raw.scored.features
            found["raw_probabilities"] = self.raw.probabilities
        if self.saliency is not None:
            found["saliency"] = self.saliency
        if self.training is not None:
            found["train_probabilities"] = self.training.probabilities
            found["train_labels"] = self.training.labels
        return found


def read_splits(videos: MeasuredSet) -> list[Tensor]:
    """Positions, int64 [M] ascending, of the test videos of each official split of a dataset.

    Empty if not all videos are measured, or for a dataset with a single split, which has no
    lists/<dataset>/splits.csv.

    Raises:
        ListError: splits.csv names a video that is not among the records, or no video.
    """
    dataset, path = videos.dataset, list_file(videos.dataset, "splits")
    if not (videos.complete and path.is_file()):
        return []
    position = {record.video_id: i for i, record in enumerate(videos.records)}
    members: dict[str, list[int]] = {}
    for line, video_id, split in read_rows(path, SPLIT_COLUMNS):
        if video_id not in position:
            raise ListError(
                f"{path}:{line}: video_id: found {video_id!r}, which is in no list of {dataset}; "
                f"run build_lists {dataset}"
            )
        members.setdefault(split, []).append(position[video_id])
    if not members:
        raise ListError(f"{path}: found no line after the header; run build_lists {dataset}")
    return [torch.tensor(sorted(members[split])) for split in sorted(members)]


def read_listed(videos: MeasuredSet) -> Tensor | None:
    """Positions, int64 [M] ascending, of the videos in train.csv or val.csv of a dataset.

    whole.csv has more where an official split leaves videos out. None if not all videos are
    measured.

    Raises:
        ListError: a list is invalid.
    """
    if not videos.complete:
        return None
    if "whole" not in videos.lists:
        return torch.arange(len(videos.records))
    listed = {
        video_id
        for name in ("train", "val")
        if (path := list_file(videos.dataset, name)).is_file()
        for _, video_id, *_ in read_rows(path, COLUMNS, OPTIONAL_COLUMNS)
    }
    there = [i for i, record in enumerate(videos.records) if record.video_id in listed]
    return torch.tensor(there, dtype=torch.int64)


def score_training_videos(
    params: Params, model: Method, text: ClassText, device: torch.device
) -> TrainingScores | None:
    """Score the training list from one view, if the method's `score_training` asks for it.

    Every process calls this. Returns None if not asked for, and on all ranks but 0. ListError if
    the training list is missing or invalid.
    """
    if not params.options.get("score_training", False):
        return None
    dataset = params.data.dataset
    records = selection.measured(params, dataset, ["train"], text.num_classes).records
    clips = model.open_inputs(params, dataset, text).views(records, "train")
    scored = score_set(model, clips, text, "train", params=params, device=device)
    if scored is None:
        return None
    return TrainingScores(
        probabilities=scored.probabilities(),
        labels=scored.labels,
        video_ids=[record.video_id for record in records],
    )


def describe_set(videos: MeasuredSet, protocol: str) -> dict[str, int | str]:
    """The metrics of `VideoSet`; expected_sha256 only if videos of this set are missing.

    Videos of the set's lists that `lists/<dataset>/missing.csv` names are expected too (for
    `whole`, all it names).
    """
    dataset, lists = videos.dataset, videos.lists
    path, ids = missing_path(dataset), [record.video_id for record in videos.records]
    there = set(ids)  # a video that lacks a segment of train.csv is in whole.csv all the same
    missing = [
        video_id
        for video_id, name in read_missing(dataset)
        if name in lists or ("whole" in lists and video_id not in there)
    ]
    described: dict[str, int | str] = {
        "dataset": dataset,
        "protocol": protocol,
        "num_videos": len(ids),
        "num_expected": len(ids) + len(missing),
        "videos_sha256": videos_sha256(ids),
        "missing_sha256": file_sha256(path) if path.is_file() else "",
    }
    if missing:
        described["expected_sha256"] = videos_sha256([*ids, *missing])
    return described


def write_results(results: Results, params: Params, device: torch.device) -> Path:
    """Write predictions/<name>.*, metrics/<recipe>/<name>.json and plots/<recipe>/<name>/videos.csv
    with the settings of the run beside it; returns that folder of plots."""
    name, plots = results.name, plots_dir(params.recipe, results.name)
    provenance = record_provenance(params, device.type, plots)
    about = {**results.described, "recipe": params.recipe, "arch": params.model.arch}
    about["model_sha256"] = provenance["model_sha256"]
    if results.raw is not None:
        about["clip_sha256"] = file_sha256(CLIP_FILE)
    if results.training is not None:
        about["train_video_ids"] = json.dumps(results.training.video_ids)
    tensors, records = results.tensors(), results.videos.records
    scored = results.evaluation.scored
    save(name, tensors, records, scored.view_names, scored.text.class_names, about)
    write_videos(plots, records, tensors, results.evaluation.single)
    path = metrics_file(params.recipe, name)
    write_metrics(path, {**results.described, **provenance, **results.values()})
    say(f"wrote predictions/{name}.*, {path}, {plots}/")
    return plots


def save(
    set_name: str,
    tensors: Mapping[str, Tensor],
    records: Sequence[Record],
    view_names: Sequence[str],
    class_names: Sequence[str],
    metadata: Mapping[str, int | str],
) -> None:
    """Write predictions/<set_name>.safetensors and, for readers, predictions/<set_name>.parquet.

    From the first, any metric, class subset or fusion of views can be computed on a CPU without the
    model; the second has the ids in the same order and `readable`.

    Args:
        tensors: features [N, V, ...], probabilities [N, K] float32, labels [N] or [N, K] int64.
        records: the N videos, in the order of the tensors' rows.
        view_names: V names, stored as a JSON list.
        metadata: stored as strings; `features_dtype` is added.
    """
    text = {key: str(value) for key, value in metadata.items()}
    text["view_names"] = json.dumps(view_names)
    text["features_dtype"] = str(tensors["features"].dtype).removeprefix("torch.")
    path = predictions_file(set_name)
    write_safetensors({k: v.contiguous() for k, v in tensors.items()}, path, text)
    multi = tensors["labels"].dim() == 2
    table = pa.table(
        {
            "video_id": [record.video_id for record in records],
            "label": [
                ";".join(map(str, record.labels or ())) if multi else record.label
                for record in records
            ],
            "pos": range(len(records)),
            **readable(tensors["probabilities"], tensors["labels"], class_names),
        }
    )
    with replacing(path.with_suffix(".parquet")) as part:
        parquet.write_table(table, part)


def write_videos(
    directory: str | Path,
    records: Sequence[Record],
    tensors: Mapping[str, Tensor],
    single: Tensor | None = None,
) -> None:
    """Write videos.csv: video_id, label, predicted and, where there is one, single_view_predicted;
    of a zero-shot set, raw_predicted.

    git tracks it, unlike the tensors of `save`, so that runs can be compared video by video in any
    clone. It takes 20 to 60 bytes a video, under 1 MB for the 20,000 of Kinetics-400. Classes are
    ids, whose names are in lists/<dataset>/labels.csv. Nothing is written for multi-label sets,
    for which no single class is predicted.

    Args:
        directory: plots/<recipe>/<set>, created if missing.
        records: the N videos, in the order of the tensors' rows.
        tensors: labels [N] int64 or targets [N, K], probabilities [N, K] float32 and, of a
            zero-shot set, raw_probabilities.
        single: probabilities [N, K] from a single view; None if there are no others, or none.
    """
    if tensors["labels"].dim() == 2:
        return
    predicted = metrics.first_of_highest(tensors["probabilities"]).tolist()
    ids = [record.video_id for record in records]
    values = (ids, tensors["labels"].tolist(), predicted)
    columns: dict[str, list] = dict(zip(VIDEOS_COLUMNS, values, strict=True))
    if single is not None:
        columns[SINGLE_COLUMN] = metrics.first_of_highest(single).tolist()
    if "raw_probabilities" in tensors:
        columns[RAW_COLUMN] = metrics.first_of_highest(tensors["raw_probabilities"]).tolist()
    write_csv(list(columns), zip(*columns.values(), strict=True), Path(directory) / VIDEOS_FILE)


def readable(
    probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> dict[str, pa.Array]:
    """Columns that say what was predicted for each video, of probabilities [N, K] float32 and of
    labels [N] int64, or targets [N, K] of 0 and 1.

    Returns:
        of N values each: `class`, the true one (several are separated by `; `); `predicted`, the
        most likely class; `probability` of that one, 0 to 1; and `rank` of the true class, 1 =
        predicted; the best one of several, null if there is none.
    """
    predicted = metrics.first_of_highest(probabilities).tolist()
    if labels.dim() == 1:
        classes = [class_names[label] for label in labels.tolist()]
        ranks = metrics.ranks(probabilities, labels).tolist()
    else:
        true_ids: list[list[int]] = [row.nonzero()[:, 0].tolist() for row in labels]
        classes = ["; ".join(class_names[k] for k in ids) for ids in true_ids]
        # With the other classes below all probabilities, the highest is the best of the true ones.
        best = metrics.first_of_highest(probabilities.masked_fill(labels == 0, -1))  # [N]
        all_ranks = metrics.ranks(probabilities, best).tolist()
        ranks = [rank if ids else None for rank, ids in zip(all_ranks, true_ids, strict=True)]
    return {
        "class": pa.array(classes, pa.string()),
        "predicted": pa.array([class_names[k] for k in predicted], pa.string()),
        "probability": pa.array(probabilities.max(dim=1).values.numpy(), pa.float32()),
        "rank": pa.array(ranks, pa.int64()),
    }
