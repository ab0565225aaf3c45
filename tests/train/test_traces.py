"""Training against golden traces, and against a plain loop that shares only the model with it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tracing
from torch import Tensor
from torch.nn import functional

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/traces.json").read_text())
# Machines differ: fp32 by 1e-6 of a loss, bf16 by 1 %.
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
MOVED_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
# With bf16 and AVX2 alone (an AMD EPYC), the sum of the weights after 5 steps differs by 1.04e-6.
WEIGHTS_TOLERANCE = {"fp32": 1e-6, "bf16": 2e-6}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_equals_golden(case: str, found: dict) -> None:
    golden, precision = GOLDEN[case], case.rpartition("-")[2]
    assert found["losses"] == pytest.approx(golden["losses"], rel=TOLERANCE[precision])
    assert found["weights"] == pytest.approx(golden["weights"], rel=WEIGHTS_TOLERANCE[precision])
    assert found["moved"] == pytest.approx(golden["moved"], rel=MOVED_TOLERANCE[precision])


@pytest.mark.parametrize("case", tracing.CASES)
def test_one_process(case):
    assert_equals_golden(case, tracing.trace(case, micro_batch=4))


@pytest.mark.slow
def test_two_processes(tmp_path):
    """One torchrun for all cases: most of its time goes to imports."""
    paths = [str(tracing.ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [*TORCHRUN, tracing.__file__],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    traces = json.loads(done.stdout.strip().splitlines()[-1])
    for case in tracing.CASES:
        assert_equals_golden(case, traces[case])


@pytest.mark.parametrize("case", [case for case in tracing.CASES if case.endswith("fp32")])
def test_a_plain_loop_gives_the_same_numbers(case):
    run = tracing.make_run(case, micro_batch=4)
    before = tracing.trained_parameters(run.method)
    losses = plain_loop(run.method, run.clips, run.text, LOSSES[case])
    found = {"losses": losses, **tracing.sums(before, tracing.trained_parameters(run.method))}
    assert_equals_golden(case, found)


def cross_entropy(model, frames: Tensor, labels: Tensor, text, _) -> Tensor:
    features = functional.normalize(model.video_embeddings(frames), dim=-1)
    logits = model.logit_scale.exp() * features @ text.class_embeddings[0].T
    return functional.cross_entropy(logits, labels)


def infonce(model, frames: Tensor, labels: Tensor, text, _) -> Tensor:
    features = functional.normalize(model.video_embeddings(frames), dim=-1)
    texts = model.text(text.token_ids[0])[labels]
    logits = model.logit_scale.exp() * features @ texts.T
    return (one_way(logits, labels) + one_way(logits.T, labels)) / 2


def drawn_prompts(model, frames: Tensor, labels: Tensor, text, templates: Tensor) -> Tensor:
    videos = functional.normalize(model.fusion_model(embeddings(model, frames)), dim=-1)
    texts = model.text(text.token_ids[templates, labels])
    logits = model.logit_scale.exp() * videos @ texts.T
    return (one_way(logits, labels) + one_way(logits.T, labels)) / 2


def concept_spotting(model, frames: Tensor, labels: Tensor, text, _) -> Tensor:
    h = functional.normalize(model.fusion_model.frames(embeddings(model, frames)), dim=-1)
    words = functional.normalize(text.token_embeddings[labels], dim=-1)  # [B, L, D]
    weights = (torch.einsum("ald,btd->albt", words, h) / 0.01).softmax(dim=-1).mean(dim=1)
    cosines = torch.einsum("btd,ad->abt", h, text.class_embeddings[0, labels])
    logits = model.logit_scale.exp() * (weights * cosines).sum(dim=-1).T  # [B, B]
    return (one_way(logits, labels) + one_way(logits.T, labels)) / 2


def dual_softmax(model, frames: Tensor, labels: Tensor, text, _) -> Tensor:
    videos = functional.normalize(embeddings(model, frames).mean(dim=1), dim=-1)
    logits = model.logit_scale.exp() * videos @ text.class_embeddings[0, labels].T
    both = [x * (x / 1000).softmax(dim=0) * len(labels) for x in (logits, logits.T)]
    return (one_way(both[0], labels) + one_way(both[1], labels)) / 2


LOSSES = {
    "ce-fp32": cross_entropy,
    "infonce-fp32": infonce,
    "vcs-fp32": concept_spotting,
    "dp-ds-fp32": dual_softmax,
    "actionclip-fp32": drawn_prompts,
}


def embeddings(model, frames: Tensor) -> Tensor:
    """[B, T, 3, S, S] -> [B, T, D]."""
    return torch.stack([model.visual(video) for video in frames])


def plain_loop(model, clips, text, plain_loss) -> list[float]:
    """Five steps with torch alone: no micro-batches, no processes, no code of train/."""
    clip = [p for n, p in model.named_parameters() if n.startswith(("visual.", "text.", "logit"))]
    head = list(model.fusion_model.parameters())
    groups = [{"params": clip, "peak": 3e-4}]
    groups += [{"params": head, "peak": 3e-3}] if head else []
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.2)
    losses = []
    for step in range(5):
        epoch, i = divmod(step, 3)
        order = np.random.default_rng([1024, epoch]).permutation(10)
        frames = torch.stack([clips.load(int(p), epoch) for p in order[4 * i : 4 * i + 4]])
        labels = torch.tensor([p % 5 % 3 for p in order[4 * i : 4 * i + 4]])
        drawn = [
            np.random.default_rng([1024, epoch, p, 1]).integers(len(text.token_ids))
            for p in order[4 * i : 4 * i + 4]
        ]
        loss = plain_loss(model, pixels(frames), labels, text, torch.tensor(drawn))
        progress = epoch + (1 / 3 if i >= 1 else 0)  # the schedule advances every second step
        factor = progress if epoch < 1 else (math.cos(math.pi * (progress - 1)) + 1) / 2
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses


def pixels(frames: Tensor) -> Tensor:
    """uint8 [B, T, 3, H, W] -> CLIP's input."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    return (frames / 255 - mean) / std


def one_way(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over entries of KL(softmax(10 * same class) || softmax(logits)), times the batch."""
    targets = (10.0 * (labels[:, None] == labels)).softmax(dim=1)
    entropy = (targets * targets.log()).mean()
    return len(labels) * (entropy - (targets * logits.log_softmax(dim=1)).mean())
