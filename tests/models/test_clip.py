"""CLIP's normalization of pixels."""

import torch

from clipzoo.models import clip


def test_pixel_constants_are_copied_to_a_device_once():
    first = clip._pixel_constants(torch.device("cpu"))
    assert clip._pixel_constants(torch.device("cpu")) is first
    with torch.device("meta"):  # as the estimates of memory build their models
        clip._pixel_constants.cache_clear()
        frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        assert clip.normalize(frames).shape == (2, 3, 4, 4)
        black = clip.normalize(torch.zeros(3, 1, 1, dtype=torch.uint8, device="cpu"))
    assert float(black[0]) == torch.tensor(-clip.CLIP_MEAN[0] / clip.CLIP_STD[0])
