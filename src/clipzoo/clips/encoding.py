"""Encode every video of a set under its views, on all processes.

Process r of w encodes batches r, r + w, ... of the set; nothing is padded or repeated, and the
features are put back by position. A batch holds the same videos whatever the number of processes,
so that its arithmetic is the same, even in reduced precision.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from clipzoo.clips.inputs import Views
from clipzoo.clips.loader import load_batches
from clipzoo.config import Params
from clipzoo.data.store import StoreError
from clipzoo.files import raise_all
from clipzoo.paths import STATE_DIR
from clipzoo.runtime.distributed import barrier, gather_objects, rank, say, world_size
from clipzoo.runtime.progress import progress_bar
from clipzoo.tensors import read_safetensors, write_safetensors

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
FLOAT32_LIMIT_BYTES = 2e9
ENCODING_STATE_DIR = STATE_DIR / "predictions"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context of fp16 or bf16 by autocast; without autocast for fp32."""
    return torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES)


class Encoder(Protocol):
    """What is used of a model: `methods.parts.method.Method` is one."""

    training: bool

    def encode(self, inputs: Tensor, /) -> Tensor:
        """Features [b, ...] of clips [b, ...]."""
        ...

    def train(self, mode: bool) -> object: ...
    def to(self, device: torch.device, /) -> "Encoder": ...


class InferenceError(ValueError):
    """Some videos of a set cannot be encoded; the message lists them."""


def local_positions(num_videos: int, num_views: int, micro_batch: int) -> list[int]:
    """Positions that this process encodes: every world-size-th batch, in ascending order.

    Example: 7 videos of 2 views, micro_batch 4, 2 processes: [0, 1, 4, 5] and [2, 3, 6].
    """
    step = _videos_per_batch(num_views, micro_batch)
    starts = range(0, num_videos, step)[rank() :: world_size()]
    return [p for start in starts for p in range(start, min(start + step, num_videos))]


def _videos_per_batch(num_views: int, micro_batch: int) -> int:
    return max(1, micro_batch // num_views)


def encode_videos(
    model: Encoder,
    clips: Views,
    positions: Sequence[int],
    *,
    device: torch.device,
    micro_batch: int,
    precision: str,
    workers: int,
    desc: str | None = None,
) -> Tensor:
    """Features of some videos under all their views, on this process alone.

    The model is in evaluation mode meanwhile. Memory: the result, and a bounded number of batches
    of micro_batch clips.

    Args:
        model: a method, on `device`.
        positions: of the videos to encode, in any order.
        micro_batch: clips encoded at once.
        precision: `fp32`, or `fp16` or `bf16` by autocast.
        workers: as for `load_batches`.
        desc: title of a progress bar on rank 0; None = no bar.

    Returns:
        features [n, V, ...] on the CPU, in the order of `positions`; float16 if those of all
        records would take over 2 GB in float32.

    Raises:
        StoreError: frames cannot be read; the message lists the broken videos found so far.
    """
    videos = list(positions) or [0]  # one, for the features' shape, if processes outnumber batches
    step = _videos_per_batch(len(clips.view_names), micro_batch)
    batches = [videos[i : i + step] for i in range(0, len(videos), step)]
    loaded = load_batches(clips.load, batches, workers, pin=device.type == "cuda")
    features, start = torch.empty(0), 0
    training = model.training
    model.train(False)
    hidden = desc is None or rank() != 0
    with progress_bar(desc or "", len(clips.records), "video", disable=hidden) as bar:
        for part in _encode_batches(model, loaded, device, micro_batch, precision):  # [b, V, ...]
            if start == 0:
                large = 4 * len(clips.records) * part[0].numel() > FLOAT32_LIMIT_BYTES
                dtype = torch.float16 if large else torch.float32
                features = torch.empty(len(videos), *part.shape[1:], dtype=dtype)  # [n, V, ...]
            features[start : start + len(part)] = part
            start += len(part)
            bar.update(min(len(part) * world_size(), bar.total - bar.n))
    model.train(training)
    return features[: len(positions)]


def _encode_batches(
    model: Encoder,
    loaded: Iterable[tuple[object, Tensor]],
    device: torch.device,
    micro_batch: int,
    precision: str,
) -> Iterator[Tensor]:
    """Features float32 [b, V, ...] of every batch, on the CPU.

    A GPU is given the next batch before the features of the one before are awaited, so that it
    always has work. Memory: two batches.
    """
    behind: tuple[Tensor, torch.cuda.Event | None] | None = None
    for _, frames in loaded:
        features = _encode_views(model, frames, device, micro_batch, precision)
        # From a GPU, `non_blocking` copies to page-locked memory, which is valid after `copied`.
        ahead = features.to("cpu", non_blocking=True)
        copied = torch.cuda.Event() if features.is_cuda else None
        if copied is not None:
            copied.record(torch.cuda.current_stream(device))
        if behind is not None:
            yield _arrived(*behind)
        behind = ahead, copied
    if behind is not None:
        yield _arrived(*behind)


def _arrived(features: Tensor, copied: torch.cuda.Event | None) -> Tensor:
    if copied is not None:
        copied.synchronize()
    return features


@torch.no_grad()
def _encode_views(
    model: Encoder, frames: Tensor, device: torch.device, micro_batch: int, precision: str
) -> Tensor:
    """uint8 [b, V, T, 3, S, S] -> features float32 [b, V, ...] on the device."""
    parts = []
    # [b, V, T, 3, S, S] -> [b V, T, 3, S, S] -> chunks [<= micro_batch, T, 3, S, S]
    for chunk in frames.flatten(0, 1).split(micro_batch):
        chunk = chunk.to(device, non_blocking=True)
        with autocast(device, precision):
            parts.append(model.encode(chunk).float())
    return torch.cat(parts).unflatten(0, frames.shape[:2])  # [b V, ...] -> [b, V, ...]


def encode_set(
    model: Encoder,
    clips: Views,
    set_name: str,
    *,
    params: Params,
    device: torch.device,
) -> Tensor | None:
    """Features of a whole set, encoded by all processes and collected on rank 0.

    Several machines need one shared folder, as the whole pipeline does.

    Args:
        model: a method; moved to `device`, which encodes the share of this process.
        set_name: for the progress bar and the scratch files.
        params: `test.precision` and `runtime` are read.

    Returns:
        features [N, V, ...] float32 in the order of the records, float16 if float32 would take
        over 2 GB; None on the other ranks.

    Raises:
        InferenceError: the set is empty, or some videos cannot be read; the message lists those of
            all processes.
    """
    num_videos, num_views = len(clips.records), len(clips.view_names)
    if not num_videos:
        raise InferenceError(f"{set_name}: no videos to encode; check the files in lists/")
    runtime = params.runtime
    positions = local_positions(num_videos, num_views, runtime.micro_batch)
    features, first_fault = torch.empty(0), ""
    try:
        features = encode_videos(
            model.to(device),
            clips,
            positions,
            device=device,
            micro_batch=runtime.micro_batch,
            precision=params.test.precision,
            workers=runtime.workers,
            desc=set_name,
        )
    except StoreError as error:
        first_fault = str(error)
    model.to(torch.device("cpu"))  # makes room for a second model
    first_faults = [text for text in gather_objects(first_fault) if text]
    if first_faults:
        say(f"{set_name}: some videos cannot be read; checking all of them")
        faults = _find_faults(clips, positions, runtime.workers)
        raise_all(f"{len(faults)} videos cannot be read", faults, InferenceError)
        raise InferenceError(
            f"{set_name}: {first_faults[0]}\nNow all videos can be read; run the stage again"
        )
    return _collect(features, positions, num_videos, ENCODING_STATE_DIR / set_name)


def _find_faults(clips: Views, positions: Sequence[int], workers: int) -> list[str]:
    """Messages for all unreadable videos of the set, on every process; each reads its share."""

    def fault(position: int) -> str:
        try:
            clips.load(position)
        except StoreError as error:
            return str(error)
        return ""

    faults = set()
    with (
        ThreadPoolExecutor(workers) as pool,
        progress_bar("check", len(positions), "video", disable=rank() != 0) as bar,
    ):
        for text in pool.map(fault, positions):
            faults |= {text} - {""}
            bar.update()
    return sorted(set().union(*gather_objects(faults)))


def _collect(
    features: Tensor, positions: Sequence[int], num_videos: int, scratch: Path
) -> Tensor | None:
    """Combine the shares of all processes on rank 0, through files under `scratch`.

    With files, each process holds only its share in memory, and rank 0 the whole set.
    """
    if world_size() == 1:
        return features
    local = {"features": features, "positions": torch.tensor(positions, dtype=torch.int64)}
    write_safetensors(local, scratch / f"{rank()}.safetensors", {})
    barrier()
    if rank() != 0:
        return None
    whole = torch.empty(num_videos, *features.shape[1:], dtype=features.dtype)
    seen = torch.zeros(num_videos, dtype=torch.int64)
    for process in range(world_size()):
        share, _ = read_safetensors(scratch / f"{process}.safetensors")
        whole[share["positions"]] = share["features"]  # [n, V, ...] into [N, V, ...]
        seen[share["positions"]] += 1
    shutil.rmtree(scratch)
    assert bool((seen == 1).all()), "every video is encoded exactly once"
    return whole
