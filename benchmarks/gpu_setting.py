"""The device and the sizes of benchmarks/gpu.py; needs PyTorch alone."""

import gc
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device, and how large and how long the measurements are."""

    device: torch.device
    archs: tuple[str, ...] = ("ViT-L/14", "ViT-B/32", "ViT-B/16")
    input_px: int = 224
    num_segments: int = 8
    batch: int = 32
    """Clips in a step, or fewer where the memory is too small; a GPU's share in the papers."""
    rounds: int = 5
    round_seconds: float = 0.4
    matrix: int = 8192
    """Side of the matrices whose product is the measured ceiling."""
    search_limit: int = 512
    stores: tuple[str, ...] = ()
    """Folders of frame stores for the loader; () = frames are made up."""
    videos: int = 2
    """Made up for the loader."""
    frames: int = 280
    """The frames of each of them."""
    load_seconds: float = 1.0
    """The length of one measurement of the loader."""
    loaders: int = 0
    """Most threads and processes of the loader; 0 = one for each core."""
    stored_sizes: int = 2


def smoke(device: torch.device) -> Setting:
    """Every measurement at a size that takes a moment on a CPU: its numbers mean nothing."""
    return Setting(
        device=device,
        archs=("ViT-demo-16",),
        input_px=32,
        num_segments=2,
        batch=4,
        rounds=2,
        round_seconds=0.01,
        matrix=128,
        search_limit=4,
        videos=1,
        frames=16,
        load_seconds=0.05,
        loaders=1,
        stored_sizes=1,
    )


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Give back what no tensor uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
