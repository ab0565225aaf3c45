"""Time and memory of the methods at equal sizes: an optimizer step, and a clip of a test.

    python benchmarks/methods.py [RECIPE ...]

Without recipes: those that `clipzoo compare` compares, which shows the results. Each
method has the options and prompts of its recipe, random weights, and random frames in memory. In a
round every method is measured once, so that all see the same state of the machine, and is divided
by the first one. Seconds are of the processor, so that other programs count little. Memory is the
largest resident size of a process that takes two steps (or scores two batches) of one method, minus
its size before it builds the model. One thread, float32.

Writes benchmarks/results/methods.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_machine import processor_name
from torch import Tensor
from torch.nn import functional

from clipzoo.commands.compare import METHODS
from clipzoo.commands.trial_steps import Trial, new_trial
from clipzoo.comparison.page import BENCHMARK
from clipzoo.config import Params
from clipzoo.config import replace as change
from clipzoo.files import json_sha256, write_json
from clipzoo.methods import needs_token_embeddings
from clipzoo.models.architectures import context_length, embed_dim
from clipzoo.models.text import ClassText
from clipzoo.report.recipes import load_recipe
from clipzoo.runtime.machine import environment

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes that all methods share."""

    title: str
    changes: Mapping[str, Any]
    """Of the recipe's parameters, by key."""
    num_classes: int
    step_clips: int
    test_clips: int
    """In a batch; a video has one view."""
    rounds: int


CASES = {
    "demo": Case(
        title="The demo: ViT-demo-16, 64 px, 8 frames, steps of 32 clips, 48 classes, 9 rounds",
        changes={},
        num_classes=48,
        step_clips=32,
        test_clips=16,
        rounds=9,
    ),
    "ViT-B/32": Case(
        title="ViT-B/32, 224 px, 8 frames, steps of 2 clips, 400 classes, 3 rounds",
        changes={"model.arch": "ViT-B/32", "model.input_px": 224, "augment.short_side_px": 256},
        num_classes=400,
        step_clips=2,
        test_clips=2,
        rounds=3,
    ),
}


class Subject:
    """One method at the sizes of one case."""

    def __init__(self, recipe: str, case: Case) -> None:
        params = params_for(recipe, case)
        torch.manual_seed(0)
        self.trial: Trial = new_trial(params, CPU)
        self.text = self.trial.gradients.text = random_text(params, case.num_classes)
        self.trial.method.start_training(self.text)
        self.step_clips = self.trial.inputs.example(case.step_clips, CPU)  # uint8 [b, T, 3, S, S]
        self.test_clips = self.step_clips[: case.test_clips]

    def step(self) -> None:
        """One optimizer step; every clip has a class of its own, or nearly."""
        self.trial.method.train()
        self.trial.step_of(self.step_clips)

    @torch.no_grad()
    def test(self) -> Tensor:
        """Probabilities [b, K] of some clips, from texts that are already encoded."""
        method = self.trial.method.eval()
        features = method.encode(self.test_clips)[:, None]  # [b, ...] -> [b, 1, ...]
        return method.score(features, self.text)

    def clip_seconds(self) -> float:
        """Of one clip of a test."""
        return seconds(self.test) / len(self.test_clips)


def params_for(recipe: str, case: Case) -> Params:
    """Those of a recipe at the sizes of a case."""
    _, params = load_recipe(recipe, ROOT)
    return change(params, dict(case.changes))


def random_text(params: Params, num_classes: int) -> ClassText:
    """Texts of the shapes that embed_labels writes for a run; what they say costs nothing.

    Returns:
        of P templates and K classes; with token embeddings where the method asks for them.
    """
    templates, length = len(params.text.templates), context_length(params.model.arch)
    dim = embed_dim(params.model.arch)
    embeddings = torch.randn(templates, num_classes, dim)  # [P, K, D]
    text = ClassText(
        token_ids=torch.ones(templates, num_classes, length, dtype=torch.int64),
        class_embeddings=functional.normalize(embeddings, dim=-1),
        class_names=[str(label) for label in range(num_classes)],
    )
    if needs_token_embeddings(params):
        text = replace(text, token_embeddings=torch.randn(num_classes, length, dim))
    return text


def seconds(action: Callable[[], object]) -> float:
    """Of one call."""
    began = time.process_time()
    action()
    return time.process_time() - began


def measure_times(case: Case, recipes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds, and ratios to the first recipe, of all recipes in turn."""
    subjects = {recipe: Subject(recipe, case) for recipe in recipes}
    measured: dict[str, dict[str, float]] = {
        recipe: {"parameters": trained_parameters(subject)} for recipe, subject in subjects.items()
    }
    timers = {
        "step": {recipe: partial(seconds, s.step) for recipe, s in subjects.items()},
        "clip": {recipe: s.clip_seconds for recipe, s in subjects.items()},
    }
    for key, timer in timers.items():
        times = [{r: take() for r, take in timer.items()} for _ in range(case.rounds + 1)]
        del times[0]  # the first round warms up
        for recipe in recipes:
            ratios = [taken[recipe] / taken[recipes[0]] for taken in times]
            measured[recipe] |= {
                f"{key}_seconds": median(taken[recipe] for taken in times),
                f"{key}_ratio": median(ratios),
                f"{key}_least": min(ratios),
                f"{key}_most": max(ratios),
            }
    return measured


def trained_parameters(subject: Subject) -> int:
    """Numbers that the optimizer changes."""
    return sum(p.numel() for p in subject.trial.method.parameters() if p.requires_grad)


def measure_memory(case: Case, recipe: str, key: str) -> float:
    """Megabytes that this process needs at most for two steps, or two batches of a test."""
    before = resident_mb("VmRSS")
    subject = Subject(recipe, case)
    for _ in range(2):
        subject.step() if key == "step" else subject.test()
    return resident_mb("VmHWM") - before


def resident_mb(key: str) -> float:
    """VmRSS, what this process uses now, or VmHWM, the most it ever used.

    Not getrusage: its largest size may be that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status: no {key}")


def in_a_process(case: str, recipe: str, key: str) -> float:
    # A threshold that does not adapt: freed tensors leave the resident size at once.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--memory", case, recipe, key]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=METHODS, help="the first is the baseline")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path, default=ROOT / BENCHMARK)
    parser.add_argument(
        "--memory", nargs=3, help="one case, recipe and step or clip, in this process"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        case, recipe, key = arguments.memory
        print(json.dumps(measure_memory(CASES[case], recipe, key)))
        return
    cases = []
    for name in arguments.cases:
        case = CASES[name]
        measured = measure_times(case, arguments.recipes)
        for recipe, values in measured.items():
            values |= {f"{key}_mb": in_a_process(name, recipe, key) for key in ("step", "clip")}
            print(f"{name}: {recipe}: {json.dumps(values)}", flush=True)
        cases.append({"title": case.title, "runs": measured})
    settings = {r: load_recipe(r, ROOT)[1].settings() for r in arguments.recipes}
    result = {
        "machine": f"{processor_name()}, {environment('cpu')}",
        "base": arguments.recipes[0],
        "settings_sha256": {recipe: json_sha256(values) for recipe, values in settings.items()},
        "cases": cases,
    }
    write_json(result, arguments.output)
    print(f"wrote {arguments.output}; next: clipzoo compare")


if __name__ == "__main__":
    main()
