"""Clips as tensors: records + store + sampling + transform, and threads that load batches ahead."""

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips.sampling import sample_test, sample_train
from clipzoo.clips.transforms import TrainTransform, ViewTransform, crop_names
from clipzoo.data.records import ListError, Record, raise_all
from clipzoo.data.store import Store, StoreError


def check_records(store: Store, records: Sequence[Record]) -> None:
    """Raise ListError naming every record that the store lacks or that is longer than its video."""
    faults = []
    for record in records:
        video = store.videos.get(record.video_id)
        end = record.start_frame + record.num_frames
        if video is None:
            faults.append(f"{record.video_id}: not in the frame store")
        elif end > video.num_frames:
            faults.append(f"{record.video_id}: frames up to {end} asked, {video.num_frames} stored")
    raise_all(f"{len(faults)} records do not fit the frame store; rerun build_lists", faults)


class TrainClips:
    """Randomly sampled and augmented clips for training."""

    def __init__(
        self,
        store: Store,
        records: Sequence[Record],
        transform: TrainTransform,
        num_segments: int,
        seed: int,
    ) -> None:
        check_records(store, records)
        self.store = store
        self.records = list(records)
        self.transform = transform
        self.num_segments = num_segments
        self.seed = seed

    def load(self, position: int, epoch: int) -> Tensor:
        """One clip; all its random choices come from (seed, epoch, position) alone.

        Args:
            position: of the record; positions from len(records) on start over with the same records
                and other random choices (few-shot epochs repeat the records).
            epoch: from 0.

        Returns:
            uint8 [T, 3, S, S].

        Raises:
            StoreError: a frame cannot be read; names the video.
        """
        record = self.records[position % len(self.records)]
        rng = np.random.default_rng([self.seed, epoch, position])
        indices = sample_train(record.num_frames, self.num_segments, rng)
        return _transformed(self.store, record, indices, lambda f: self.transform(f, rng))


class ViewClips:
    """The views of every video: temporal clips x spatial crops, without randomness."""

    def __init__(
        self,
        store: Store,
        records: Sequence[Record],
        transform: ViewTransform,
        num_segments: int,
        clips: int,
        dense: bool,
    ) -> None:
        check_records(store, records)
        self.store = store
        self.records = list(records)
        self.transform = transform
        self.num_segments = num_segments
        self.clips = clips
        self.dense = dense

    @property
    def view_names(self) -> list[str]:
        """Names of the V = clips * crops views, clip-major: clip0-left, clip0-right, ..."""
        crops = crop_names(self.transform.crops)
        return [f"clip{c}-{crop}" for c in range(self.clips) for crop in crops]

    def load(self, position: int) -> Tensor:
        """All views of one video.

        Returns:
            uint8 [V, T, 3, S, S].

        Raises:
            StoreError: a frame cannot be read; names the video.
        """
        record = self.records[position]
        indices = sample_test(record.num_frames, self.num_segments, self.clips, self.dense)

        def views(frames: Sequence[bytes] | np.ndarray) -> Tensor:
            crops = self.transform(frames)  # [crops, clips * T, 3, S, S]
            return crops.unflatten(1, (self.clips, self.num_segments)).transpose(0, 1).flatten(0, 1)

        return _transformed(self.store, record, indices.flatten(), views)


def _transformed(
    store: Store,
    record: Record,
    indices: np.ndarray,
    transform: Callable[[Sequence[bytes] | np.ndarray], Tensor],
) -> Tensor:
    """Read frames of a record and transform them; damaged frames are a StoreError."""
    frames = store.read(record.video_id, indices + record.start_frame)
    try:
        return transform(frames)
    except ValueError as error:
        raise StoreError(f"{record.video_id}: a frame cannot be decoded ({error})") from error


def load_batches(
    load: Callable[[int], Tensor], batches: Iterable[Sequence[int]], workers: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Load batches in threads, a bounded number ahead.

    Threads suffice because decoding, resizing and reading release the interpreter's lock. Two
    batches are held, or as many as 2 * workers clips need, whatever the consumer's speed.

    Args:
        load: position -> tensor; called from several threads.
        batches: positions of each batch.
        workers: threads, 1 or more.

    Yields:
        (positions, tensor [B, ...]) in the order of `batches`.

    Raises:
        StoreError: frames cannot be read or do not fit; raised after all clips that were queued by
            then have been tried, and lists the broken ones among them.
    """
    waiting = iter(batches)
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="loader")
    queue: deque[tuple[Sequence[int], list[concurrent.futures.Future[Tensor]]]] = deque()
    try:
        while True:
            while len(queue) < 2 or sum(len(batch) for batch, _ in queue) < 2 * workers:
                batch = next(waiting, None)
                if batch is None:
                    break
                queue.append((batch, [pool.submit(load, position) for position in batch]))
            if not queue:
                return
            batch, futures = queue.popleft()
            if any(future.exception() for future in futures):
                rest = [future for _, more in queue for future in more]
                _raise_faults([e for f in (*futures, *rest) if (e := f.exception()) is not None])
            yield batch, torch.stack([future.result() for future in futures])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _raise_faults(errors: list[BaseException]) -> None:
    """One StoreError for broken videos; an own bug (any other error) goes on as it is."""
    for error in errors:
        if not isinstance(error, (StoreError, ListError)):
            raise error
    faults = list(dict.fromkeys(str(error) for error in errors))
    raise_all(f"{len(faults)} videos cannot be read", faults, StoreError)
