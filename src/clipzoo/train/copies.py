"""Copies of clips to a GPU, made while it computes.

A stream does its work in order. On the stream of the kernels, a copy would begin only when they
have finished the micro-batch before:

    one stream     copy 1 | compute 1 | copy 2 | compute 2 | copy 3 | compute 3
    two streams    copy 1 | compute 1 | compute 2 | compute 3
                          | copy 2    | copy 3
"""

from typing import Any

import torch
from torch import Tensor


class Copies:
    """Sends clips to a device by a stream of its own, into two buffers that take turns.

    Buffers rather than new tensors: the CPU is up to ten steps ahead of the GPU, and would fill its
    memory with clips.

    Args:
        device: of the buffers, a GPU.
        streams: what makes its streams; tests have others.
    """

    def __init__(self, device: torch.device, streams: Any = torch.cuda) -> None:
        self._device, self._streams = device, streams
        self._stream = streams.Stream(device)
        self._buffers: list[Tensor | None] = [None, None]
        self._used: list[Any] = [None, None]
        """For each buffer the event after which nothing reads it any more."""
        self._turn = 0

    def send(self, clips: Tensor) -> Tensor:
        """Clips [b, ...] on the device, which hold until the call after the next one.

        All work with them must have been given to the current stream before the next call. They are
        copied without waiting if they come from pinned memory.
        """
        # 2 buffers, A and B. Copy 3 waits for the end of compute 1, which call 2 has marked.
        #
        #   call          1        2                   3
        #   copies        1 -> A   2 -> B              wait for "A used", 3 -> A
        #   kernels       compute 1, "A used", compute 2, "B used", compute 3
        if clips.device.type != "cpu":
            return clips
        kernels = self._streams.current_stream(self._device)
        self._used[self._turn] = kernels.record_event()
        self._turn = 1 - self._turn
        buffer = self._buffers[self._turn]
        if buffer is None or len(buffer) < len(clips):
            buffer = torch.empty_like(clips, device=self._device)
            self._buffers[self._turn] = buffer
            self._stream.wait_stream(kernels)  # which may still use this memory for something else
        sent = buffer[: len(clips)]  # a smaller micro-batch ends a step
        with self._streams.stream(self._stream):
            if self._used[self._turn] is not None:
                self._stream.wait_event(self._used[self._turn])
            sent.copy_(clips, non_blocking=True)
        kernels.wait_stream(self._stream)
        return sent
