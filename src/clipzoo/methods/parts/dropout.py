"""Dropout whose masks are a function of the clip, not of a random generator's state.

With torch's dropout the masks depend on which process encodes a clip, in which micro-batch, and on
what was drawn since the run began. Here they are hashes of the clip's pixels, the place in the
network and the unit. So any number of processes and micro-batches, a resumed run and the second
pass of a step (train/gradients.py) all drop the same units. Augmentation gives a video other pixels
in every epoch; without any, it would have the same masks in all of them.
"""

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
"""32 bits."""
SAMPLES = 4096
"""Pixels that a clip's key is made of, at most about twice as many."""


def clip_keys(inputs: Tensor) -> Tensor:
    """A key for each clip, int64 [b] in 0 .. 2**32 - 1, of uint8 frames [b, T, 3, S, S]."""
    pixels = inputs.flatten(1)  # [b, T, 3, S, S] -> [b, n]
    pixels = pixels[:, :: max(1, pixels.shape[1] // SAMPLES)].long()  # [b, m]
    weights = _mix(torch.arange(pixels.shape[1], device=inputs.device))  # [m]
    return _mix((pixels * weights).sum(dim=1) & WORD)  # [b, m] -> [b]


def drop(x: Tensor, keys: Tensor, place: int, share: float) -> Tensor:
    """Set a share of each clip's units to 0 and divide the others by 1 - share.

    Args:
        x: [b, ...].
        keys: what `clip_keys` gives for the clips, int64 [b].
        place: number of the dropout in the network; each has masks of its own.
        share: the part of the units that is dropped, at least 0 and below 1.

    Returns:
        the same shape and dtype.
    """
    streams = _mix(keys ^ _mix(torch.full_like(keys, place)))  # [b]
    units = _mix(torch.arange(x[0].numel(), device=x.device))  # [n]
    hashes = _mix(streams[:, None] ^ units)  # [b, 1] ^ [n] -> [b, n], uniform in 0 .. 2**32 - 1
    kept = (hashes >= int(share * 2**32)).view(x.shape)  # [b, n] -> [b, ...]
    return torch.where(kept, x / (1 - share), 0.0)


def _mix(words: Tensor) -> Tensor:
    """A bijective hash of 32-bit words in int64: `lowbias32` of Chris Wellons' hash-prospector.

    A product may overflow 64 bits; its low 32 bits, which are kept, are right even then.
    """
    words = words ^ (words >> 16)
    words = (words * 0x7FEB352D) & WORD
    words = words ^ (words >> 15)
    words = (words * 0x846CA68B) & WORD
    return words ^ (words >> 16)
