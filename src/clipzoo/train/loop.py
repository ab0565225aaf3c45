"""Training: clips and class text in, a model file out.

One optimizer step takes `train.batch_size` clips over all processes and micro-batches: plan.py
chooses them, gradients.py computes their gradients. Deviations from the authors' loop: the schedule
counts optimizer steps (theirs counts micro-batches), and the last, shorter batch of an epoch is
used in full.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipzoo import methods
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.loader import load_batches
from clipzoo.data.targets import label_tensor, mean_average_precision
from clipzoo.paths import MODEL_FILE
from clipzoo.runtime.distributed import (
    barrier,
    gather_by_position,
    gather_objects,
    rank,
    say,
    world_size,
)
from clipzoo.tensors import read_safetensors
from clipzoo.train.attention import unbind_projections
from clipzoo.train.compilation import compile_tower, named_compiler_errors, uncompiled
from clipzoo.train.dealing import MicroBatch, micro_batches
from clipzoo.train.log import TrainingLog, WaitingTime
from clipzoo.train.optim import count_skipped_steps, make_optimizer, schedule_factor
from clipzoo.train.raw_clip import patch, raw_tensors
from clipzoo.train.setup import Run, TrainingError, step_gradients
from clipzoo.train.state import Progress, load_state, save_state

BEST_FILE = "best.safetensors"


def train(run: Run) -> dict[str, float]:
    """Train from the last resume point (or the start) to the end and write the model file.

    Returns the metrics of training. The state stays until the caller has written everything else
    (`remove_state`).

    Raises:
        TrainingError: a loss is not finite, or the tower cannot be compiled.
        StateError: the resume point does not fit.
        DiskError: the disk is full.
    """
    settings, plan, method = run.params.train, run.plan, run.method
    if settings.activation_checkpointing:
        method.set_grad_checkpointing()
    unbind_projections(method)
    if settings.compile:
        compile_tower(method.visual)
    optimizer = make_optimizer(method, settings)
    scaler = torch.amp.GradScaler(run.device.type, enabled=settings.precision == "fp16")
    raw = raw_tensors(run.device) if settings.interpolated_loss_weight else {}
    gradients = step_gradients(run.params, method, run.text, run.device, scaler, raw)
    progress = load_state(run.state_dir, method, optimizer, scaler, run.device)
    log = TrainingLog(run.log_dir, progress.history, plan.total_steps, run.device)
    unread: list[TakenStep] = []
    method.train()
    for step in load_steps(run, progress.step, log.waiting):
        lr = set_learning_rate(optimizer, run, step.number)
        optimizer.zero_grad(set_to_none=True)
        with named_compiler_errors() if settings.compile else nullcontext():
            loss = gradients.add(
                step.labels, step.parts, step.inputs, step.templates, step=step.number
            )
        if settings.grad_clip:
            scaler.unscale_(optimizer)  # before, so that the limit is one of the true gradients
            nn.utils.clip_grad_norm_(method.parameters(), settings.grad_clip)
        scaler.step(optimizer)  # under fp16, unless a gradient is infinite: then the scale falls
        scaler.update()
        progress.step += 1
        unread.append(TakenStep(step=step, loss=loss, lr=lr))
        if not reads_losses(progress.step, run):
            continue
        rows = read_losses(unread, run)
        progress.skipped_steps = count_skipped_steps(optimizer, scaler, progress.step)
        average_weights(progress, run)
        if plan.validates(progress.step, settings.val_every):
            rows[-1][val_metric(run)] = validate(run, progress)
        progress.history += rows
        log.add(rows, sum(len(taken.step.positions) for taken in unread), progress.skipped_steps)
        unread.clear()
        # After the last step too: a run that fails to write its model continues from here.
        if progress.step % settings.checkpoint_every == 0 or progress.step == plan.total_steps:
            if rank() == 0:
                save_state(run.state_dir, progress, method, optimizer, scaler)
            barrier()
    metrics = finish(run, progress)
    log.close()
    say(f"trained {len(progress.history)} steps; {describe_speed(log)}")
    return metrics


def describe_speed(log: TrainingLog) -> str:
    """What the log says at the end: clips, seconds, and the share of waiting."""
    seconds = time.perf_counter() - log.started
    waiting = 100 * log.waiting.seconds / seconds
    return (
        f"{log.num_clips} clips in this call's {seconds:.0f} s, {waiting:.0f}% of it waiting for "
        "data"
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """The clips of one optimizer step."""

    number: int
    """Number of the step in the run, from 0."""
    positions: list[int]
    """Positions of its clips in the epoch, over all processes."""
    labels: Tensor
    """The labels of these clips, [B] int64."""
    templates: Tensor | None
    """The templates of their texts, [B] int64; None unless the method `draws_templates`."""
    parts: list[MicroBatch]
    """This process's share of them."""
    inputs: Iterator[Tensor]
    """The clips of each part, as the method's `encode` takes them: [b, ...]."""


@dataclass(frozen=True, kw_only=True)
class TakenStep:
    """An optimizer step whose loss has not been read yet."""

    step: Step
    loss: Tensor
    """The loss, a scalar on the device."""
    lr: float
    """The learning rate of the head."""


def load_steps(run: Run, first: int, waiting: WaitingTime) -> Iterator[Step]:
    """Every step of the run from the `first` on; clips are loaded ahead within an epoch.

    The time in which the device waits for them is added to `waiting`.
    """
    plan, micro = run.plan, run.params.runtime.micro_batch
    for epoch in range(first // plan.steps_per_epoch, plan.epochs):
        start = epoch * plan.steps_per_epoch
        steps = plan.step_positions(epoch)[max(first - start, 0) :]
        group = run.params.augment.dealt_together
        parts = [micro_batches(len(positions), micro, group) for positions in steps]
        batches = [
            [positions[place] for place in part.places]
            for positions, step_parts in zip(steps, parts, strict=True)
            for part in step_parts
        ]
        loader = load_batches(
            lambda position, epoch=epoch: run.clips.load(position, epoch),
            batches,
            run.params.runtime.workers,
            pin=run.device.type == "cuda",
        )
        for number, (positions, step_parts) in enumerate(
            zip(steps, parts, strict=True), max(first, start)
        ):
            templates = None
            if run.method.draws_templates:
                num_templates = len(run.text.token_ids)  # [P, K, L]
                templates = torch.tensor(plan.draw_templates(epoch, positions, num_templates))
            yield Step(
                number=number,
                positions=positions,
                labels=torch.tensor([run.clips.record(p).label for p in positions]),
                templates=templates,
                parts=step_parts,
                inputs=_next_inputs(loader, len(step_parts), waiting),
            )


def _next_inputs(
    loader: Iterator[tuple[object, Tensor]], count: int, waiting: WaitingTime
) -> Iterator[Tensor]:
    """The next `count` batches, each loaded only when it is asked for."""
    for _ in range(count):
        with waiting.measured():
            _, inputs = next(loader)
        yield inputs


def set_learning_rate(optimizer: torch.optim.Optimizer, run: Run, step: int) -> float:
    """Set the learning rate of every group for a step; returns that of the head."""
    settings = run.params.train
    factor = schedule_factor(step, run.plan.steps_per_epoch, settings)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return settings.lr * factor


def read_every(device: torch.device) -> int:
    """Steps between two readings of the losses.

    A reading waits until a GPU has finished all its work, and the GPU then idles until it is given
    more. On a CPU there is nothing to wait for.
    """
    return 1 if device.type == "cpu" else 10


def reads_losses(step: int, run: Run) -> bool:
    """Whether the losses are read after `step` steps: every few steps, and before weights are kept.

    So a loss that is not finite stops the run before its weights are validated, averaged or saved.
    """
    plan = run.plan
    periods = (read_every(run.device), plan.steps_per_epoch, run.params.train.checkpoint_every)
    return step == plan.total_steps or any(step % period == 0 for period in periods)


def read_losses(unread: Sequence[TakenStep], run: Run) -> list[dict[str, float]]:
    """The rows of some steps for the log, in one transfer from the device.

    Raises:
        TrainingError: a loss is not finite; names the first such step and its videos.
    """
    rows = []
    losses = torch.stack([taken.loss for taken in unread]).tolist()  # scalars -> [len(unread)]
    for taken, loss in zip(unread, losses, strict=True):
        number = taken.step.number
        if not math.isfinite(loss):
            ids = [run.clips.record(position).video_id for position in taken.step.positions]
            raise TrainingError(
                f"the loss of step {number} (epoch {number // run.plan.steps_per_epoch}) is "
                f"{loss}; its videos: {', '.join(ids)}; lower train.lr or use train.precision=bf16 "
                "or fp32"
            )
        rows.append({"step": number, "loss": loss, "lr": taken.lr})
    return rows


def average_weights(progress: Progress, run: Run) -> None:
    """Keep the running mean of the weights after each of the last `average_epochs` epochs, or of
    all, where a run has fewer.

    mean_n = mean_(n - 1) + (weights - mean_(n - 1)) / n, so one copy of the weights is enough.
    """
    epoch, rest = divmod(progress.step, run.plan.steps_per_epoch)
    before = max(run.params.train.epochs - run.params.train.average_epochs, 0)
    count = epoch - before
    if rest or count < 1:
        return
    for name, value in run.method.state_dict().items():
        mean = progress.average.setdefault(name, torch.zeros_like(value))
        if value.is_floating_point():
            mean += (value - mean) / count
        else:  # counters of batch normalization
            mean.copy_(value)


def validate(run: Run, progress: Progress) -> float:
    """The validation score of the current weights; the best ones are saved if they are selected."""
    key, score = val_metric(run), single_view_score(run)
    if not progress.best or score > progress.best[key]:
        epoch = progress.step / run.plan.steps_per_epoch
        progress.best = {"epoch": epoch, key: score}
        if run.params.train.select == "best" and rank() == 0:
            methods.save_model(run.method, run.state_dir / BEST_FILE, {})
    return score


def val_metric(run: Run) -> str:
    """The name of the validation score: `val_top1`, or `val_map` if the list is multi-label."""
    several = any(record.labels is not None for record in run.val_clips.records)
    return "val_map" if several else "val_top1"


def single_view_score(run: Run) -> float:
    """`val_metric` (percent) of the current weights: one clip, the center crop of every video.

    The precision is a parameter of its own, so that a recipe can validate quickly and still test
    as its authors do. Those of Text4Vis validate without autocast (`validate` in their train.py).
    """
    records, runtime, settings = run.val_clips.records, run.params.runtime, run.params.train
    share = list(range(len(records)))[rank() :: world_size()]
    with uncompiled() if settings.compile else nullcontext():
        features = encode_videos(
            run.method,
            run.val_clips,
            share,
            device=run.device,
            micro_batch=runtime.micro_batch,
            precision=settings.val_precision,
            workers=runtime.workers,
        )
    with torch.no_grad():
        text = run.method.class_text(run.text).to("cpu")
        scores = run.method.score(features, text)  # [n, K]
    if val_metric(run) == "val_map":
        scores = gather_by_position(share, scores)  # [n, K] -> [N, K]
        return mean_average_precision(scores, label_tensor(records, scores.shape[1]))
    labels = torch.tensor([records[position].label for position in share])
    correct = sum(gather_objects(int((scores.argmax(dim=1) == labels).sum())))
    return 100 * correct / len(records)


def finish(run: Run, progress: Progress) -> dict[str, float]:
    """Write the model file and return the metrics."""
    metrics: dict[str, float] = {}
    if run.params.train.select == "best" and progress.best:
        barrier()  # until rank 0 has written the file
        run.method.load_state_dict(read_safetensors(run.state_dir / BEST_FILE)[0])
    if progress.average:
        run.method.load_state_dict(progress.average)
        metrics[f"{val_metric(run)}_average"] = single_view_score(run)
    if share := methods.raw_share_to_add(run.params):
        patch(run.method, raw_tensors(run.device), share)
    if rank() == 0:
        methods.save_model(run.method, MODEL_FILE, run.metadata)
        methods.save_classifier(run.text.class_embeddings)
    losses = [row["loss"] for row in progress.history]
    metrics |= {"steps": len(losses), "epochs": run.params.train.epochs}
    if run.params.train.precision == "fp16":
        metrics["skipped_steps"] = progress.skipped_steps
    if losses:
        tail = losses[-run.plan.steps_per_epoch :]
        metrics["loss_last_epoch"] = sum(tail) / len(tail)
        key = val_metric(run)
        metrics[f"{key}_last"] = progress.history[-1][key]
        metrics[f"{key}_best"] = progress.best[key]
        metrics["epoch_best"] = progress.best["epoch"]
    return metrics
