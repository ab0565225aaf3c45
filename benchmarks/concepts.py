"""Memory and time of BIKE's Video Concept Spotting in blocks, and of the plain formula.

    python benchmarks/concepts.py

Training: scores of 256 videos and 256 classes and their gradients. Scoring: 8 videos under 12 views
and 400 classes. 16 frames, 77 tokens, 512 numbers an embedding, float32. Each line is measured in
a process of its own; memory is the largest resident size minus that before the first call. The time
is of the second call, in wall seconds. Both ways get the same inputs, and the last column is the
largest difference of their scores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.methods.parts.similarity import spotted_cosines

NUM_FRAMES, NUM_TOKENS, DIM, TEMPERATURE = 16, 77, 512, 0.01
CASES = {"training": (256, 256), "scoring": (8 * 12, 400)}
"""(clips, classes); training has gradients."""


def plain(frames: Tensor, classes: Tensor, words: Tensor, temperature: float) -> Tensor:
    """The formula with one tensor [K, L, B, T], as the authors' code has it."""
    h, c, w = (functional.normalize(x, dim=-1) for x in (frames, classes, words))
    fit = torch.einsum("kld,btd->klbt", w, h)  # [K, L, B, T]
    weights = (fit / temperature).softmax(dim=-1).mean(dim=1)  # [K, L, B, T] -> [K, B, T]
    pooled = torch.einsum("kbt,btd->kbd", weights, h)  # [K, B, D]
    return torch.einsum("kbd,kd->bk", pooled, c)  # [B, K]


def run(case: str, way: str, output: Path) -> dict[str, float]:
    """Two calls in this process: memory in MB, and the second's seconds."""
    num_clips, num_classes = CASES[case]
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(num_clips, NUM_FRAMES, DIM, generator=generator)
    classes = torch.randn(num_classes, DIM, generator=generator)
    words = torch.randn(num_classes, NUM_TOKENS, DIM, generator=generator)
    frames.requires_grad_(case == "training")
    score = plain if way == "plain" else spotted_cosines
    before, seconds = largest_mb(), 0.0
    for _ in range(2):
        began = time.perf_counter()
        scores = score(frames, classes, words, TEMPERATURE)
        if frames.requires_grad:
            scores.sum().backward()
        seconds = time.perf_counter() - began
        torch.save(scores.detach(), output)
        del scores
    return {"mb": largest_mb() - before, "seconds": seconds}


def largest_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def in_a_process(case: str, way: str, output: Path) -> dict[str, float]:
    # A threshold that does not adapt: freed tensors leave the resident size at once.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--run", case, way, str(output)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs=3, help="one case and way here, scores to a file")
    arguments = parser.parse_args()
    if arguments.run:
        case, way, output = arguments.run
        print(json.dumps(run(case, way, Path(output))))
        return
    print("                          blocks            plain             ratio")
    print("case      clips  classes      MB      s       MB      s      MB       s  differ by")
    with tempfile.TemporaryDirectory() as folder:
        for case, (num_clips, num_classes) in CASES.items():
            files = [Path(folder) / way for way in ("blocks", "plain")]
            blocks, formula = (in_a_process(case, file.name, file) for file in files)
            scores = [torch.load(file) for file in files]
            print(
                f"{case:8}  {num_clips:5}  {num_classes:7}  {blocks['mb']:6.0f}  "
                f"{blocks['seconds']:5.1f}  {formula['mb']:7.0f}  {formula['seconds']:5.1f}  "
                f"{blocks['mb'] / formula['mb']:6.2f}  "
                f"{blocks['seconds'] / formula['seconds']:6.2f}  "
                f"{float((scores[0] - scores[1]).abs().max()):.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
