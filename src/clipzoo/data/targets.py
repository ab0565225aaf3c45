"""Labels as tensors, and mean average precision, with which training validates multi-label sets and
evaluation measures every set."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipzoo.data.records import Record

if TYPE_CHECKING:
    from torchnet.meter import mAPMeter


def label_tensor(records: Sequence[Record], num_classes: int) -> Tensor:
    """Labels, [N] int64, or targets, [N, K] int64 of 0 and 1, if the records have `labels`."""
    if all(record.labels is None for record in records):
        return torch.tensor([record.label for record in records])
    targets = torch.zeros(len(records), num_classes, dtype=torch.int64)
    for row, record in enumerate(records):
        targets[row, list(record.labels or ())] = 1
    return targets


def as_targets(labels: Tensor, num_classes: int) -> Tensor:
    """Targets, [N, K] int64 of 0 and 1, of labels [N] or of targets, which stay as they are."""
    if labels.dim() == 1:
        labels = torch.nn.functional.one_hot(labels, num_classes)  # [N] -> [N, K]
    return labels.long()


def mean_average_precision(probabilities: Tensor, labels: Tensor) -> float:
    """The mean over classes of the average precision (percent), as torchnet's mAPMeter computes it.

    A class without positives counts as 0, as in torchnet, which lowers the mean.

    Args:
        probabilities: [N, K] float.
        labels: [N] int64 in [0, K), or targets [N, K] of 0 and 1.
    """
    with map_meter() as meter:
        meter.add(probabilities.float(), as_targets(labels, probabilities.shape[1]))
        return 100 * float(meter.value())


@contextmanager
def map_meter() -> Iterator["mAPMeter"]:
    """torchnet's meter, without the warnings: it is older than they are, and its results are
    correct."""
    from torchnet.meter import mAPMeter  # training on single labels needs none

    with warnings.catch_warnings():
        for message in ("TypedStorage is deprecated", "indexing with dtype torch.uint8"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield mAPMeter()
