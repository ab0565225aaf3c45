"""Memory and time of a step whose loss compares all its videos, by number of micro-batches.

    python benchmarks/gradients.py

Each line is a step of B clips in micro-batches of 4, and the same step in one micro-batch, which
keeps the graph of all clips (both in processes of their own). Memory is the largest resident size
minus that of a step of one micro-batch of 4 clips: what grows with the step. The time is of the
second step, in wall seconds. InfoNCE, text tower frozen, one thread, float32.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional

from clipzoo.methods.text4vis import Options, Text4Vis
from clipzoo.models.clip import build_clip
from clipzoo.models.text import ClassText
from clipzoo.train.dealing import micro_batches
from clipzoo.train.gradients import StepGradients

ARCH, INPUT_PX, NUM_SEGMENTS, NUM_CLASSES, DIM = "ViT-demo-16", 128, 8, 16, 128
MICRO_BATCH = 4
STEPS = (8, 16, 32, 64, 128)


def run_step(size: int, micro_batch: int) -> dict[str, float]:
    """Two steps in this process: the largest resident size (MB) and the second's seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = {"head": "Transf", "head_layers": 6, "temporal_module": "none", "joint": False}
    options |= {"loss": "infonce", "text_tower": "frozen"}
    method = Text4Vis(build_clip(ARCH, INPUT_PX), Options.model_validate(options), NUM_SEGMENTS)
    text = ClassText(
        token_ids=torch.zeros(1, NUM_CLASSES, 12, dtype=torch.int64),
        class_embeddings=functional.normalize(torch.randn(1, NUM_CLASSES, DIM), dim=-1),
        class_names=[str(label) for label in range(NUM_CLASSES)],
    )
    cpu, scaler = torch.device("cpu"), torch.amp.GradScaler("cpu", enabled=False)
    gradients = StepGradients(method.train(), text, device=cpu, precision="fp32", scaler=scaler)
    labels, parts = torch.arange(size) % NUM_CLASSES, micro_batches(size, micro_batch)
    shape = (NUM_SEGMENTS, 3, INPUT_PX, INPUT_PX)
    seconds = 0.0
    for _ in range(2):
        method.zero_grad(set_to_none=True)
        inputs = (
            torch.randint(0, 256, (len(part.places), *shape), dtype=torch.uint8) for part in parts
        )
        began = time.perf_counter()
        gradients.add(labels, parts, inputs)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"mb": peak, "seconds": seconds}


def in_a_process(size: int, micro_batch: int) -> dict[str, float]:
    # A threshold that does not adapt: freed tensors leave the resident size at once.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--step", str(size), str(micro_batch)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", nargs=2, type=int, help="run one step here, and print it")
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(*arguments.step)))
        return
    least = in_a_process(MICRO_BATCH, MICRO_BATCH)["mb"]
    print(f"a step of {MICRO_BATCH} clips in one micro-batch: {least:.0f} MB in all")
    print("clips  micro-batches  more MB   in one: more MB  memory ratio  time ratio")
    for size in STEPS:
        two_pass, one_pass = in_a_process(size, MICRO_BATCH), in_a_process(size, size)
        more = [step["mb"] - least for step in (two_pass, one_pass)]
        print(
            f"{size:5}  {size // MICRO_BATCH:13}  {more[0]:7.0f}  {more[1]:16.0f}  "
            f"{more[0] / more[1]:12.2f}  {two_pass['seconds'] / one_pass['seconds']:10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
