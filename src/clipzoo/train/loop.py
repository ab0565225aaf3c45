"""Training: records and class embeddings in, a model file out.

One optimizer step takes `train.batch_size` clips over all processes and micro-batches (plan.py):
each process takes every world-size-th clip of a step, and each clip weighs the same in the
gradient. Deviations from the authors' loop: the schedule counts optimizer steps (theirs
micro-batches), and the last accumulation window of an epoch is used whole. Batch normalisation
(ResNet towers) sees micro-batches, so there alone the micro-batch matters.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.encoding import encode_videos
from clipzoo.clips.loader import load_batches
from clipzoo.clips.transforms import normalise
from clipzoo.config import Params
from clipzoo.data.records import Record
from clipzoo.methods import checkpoint
from clipzoo.methods.parts.losses import gather_batch, nce_loss
from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.text import ClassText, class_embeddings
from clipzoo.runtime.distributed import barrier, gather_objects, rank, say, world_size
from clipzoo.runtime.progress import progress_bar
from clipzoo.tensors import read_safetensors
from clipzoo.train.optim import parameter_groups, schedule_factor
from clipzoo.train.plan import Plan, micro_batches

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TrainingError(ValueError):
    """Training cannot go on; the message says where and why."""


class _ClipLoss(nn.Module):
    """Frames and labels to this process's part of a step's loss: the forward pass DDP wraps.

    DDP averages gradients over processes, so the parts are scaled by the number of processes.
    """

    def __init__(self, model: Text4Vis, text: ClassText, kind: str) -> None:
        super().__init__()
        self.model = model
        self.text = text
        self.kind = kind

    def forward(self, frames: Tensor, labels: Tensor, counted: bool, batch_size: int) -> Tensor:
        features = self.model.encode(frames)  # [b, D]
        if self.kind == "infonce":
            return self._nce(features, labels, counted) / batch_size
        loss = self.model.loss(features, labels, self.text.class_embeddings)
        return loss * len(labels) * counted * world_size() / batch_size

    def _nce(self, features: Tensor, labels: Tensor, counted: bool) -> Tensor:
        """InfoNCE over the micro-batches of all processes, times the number of their clips."""
        classes = class_embeddings(self.model, self.text)  # [P, K, D]
        texts = functional.normalize(classes.mean(dim=0), dim=-1)[labels]  # [b, D]
        videos = functional.normalize(features.float(), dim=-1)
        keys = torch.stack([labels, torch.full_like(labels, counted)], dim=1)  # [b, 2]
        keys = gather_batch(keys)
        kept = keys[:, 1] == 1
        videos, texts = gather_batch(videos)[kept], gather_batch(texts)[kept]
        logits = self.model.logit_scale.float().exp() * videos @ texts.T
        return nce_loss(logits, keys[kept, 0]) * len(videos)


@dataclass(kw_only=True)
class Trainer:
    """Everything that one run holds while it trains."""

    params: Params
    device: torch.device
    model: Text4Vis
    metadata: dict[str, Any]
    clips: TrainClips
    val_clips: ViewClips
    text: ClassText
    """The classes' tokens and embeddings, on the device."""
    plan: Plan
    state_dir: Path
    live: Any
    """dvclive.Live on rank 0, None on the others."""

    def __post_init__(self) -> None:
        train = self.params.train
        self.model.to(self.device)
        if train.activation_checkpointing:
            self.model.set_grad_checkpointing()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, train.lr, train.clip_ratio),
            betas=(train.beta1, train.beta2),
            eps=train.eps,
            weight_decay=train.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=train.precision == "fp16")
        self.loss: nn.Module = _ClipLoss(self.model, self.text, self.params.options["loss"])
        if dist.is_initialized():
            ids = [self.device] if self.device.type == "cuda" else None
            self.loss = DistributedDataParallel(
                self.loss, device_ids=ids, gradient_as_bucket_view=True
            )
        self.average: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.started, self.clips_seen, self.waited_seconds = time.perf_counter(), 0, 0.0

    def run(self) -> dict[str, float]:
        """Train from the last resume point (or the start) to the end and write the model file.

        Returns:
            the metrics of training.

        Raises:
            TrainingError: a loss is not finite.
        """
        step = self._resume()
        bar = progress_bar(
            "train", self.plan.total_steps, "step", initial=step, disable=rank() != 0
        )
        for epoch in range(step // self.plan.steps_per_epoch, self.params.train.epochs):
            first = step - epoch * self.plan.steps_per_epoch
            batches = self.plan.step_positions(epoch)[first:]
            batches = batches[: self.plan.total_steps - step]
            loader = self._load(batches, epoch)
            for batch in batches:
                row = self._step(step, batch, loader)
                step += 1
                self._average(step)
                if self.plan.validates(step, self.params.train.val_every):
                    row["val_top1"] = self._validate(step)
                self._log(row, bar)
                if step % self.params.train.checkpoint_every == 0 and step < self.plan.total_steps:
                    self._save_state(step)
        bar.close()
        return self._finish()

    def _load(self, batches: list[list[int]], epoch: int) -> Iterator[tuple[Any, Tensor]]:
        """Frames [b, T, 3, S, S] uint8 of this process's micro-batches, in order."""
        parts = [
            positions
            for batch in batches
            for positions, _ in micro_batches(batch, self.params.runtime.micro_batch)
        ]
        return load_batches(
            lambda position: self.clips.load(position, epoch), parts, self.params.runtime.workers
        )

    def _step(self, step: int, batch: list[int], loader: Iterator[Any]) -> dict[str, float]:
        """One optimizer step; returns its loss and learning rate."""
        train = self.params.train
        factor = schedule_factor(
            step,
            steps_per_epoch=self.plan.steps_per_epoch,
            epochs=train.epochs,
            warmup_epochs=train.warmup_epochs,
            schedule=train.schedule,
            update_every=train.update_every,
            milestones=train.milestones,
            gamma=train.gamma,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.loss.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = micro_batches(batch, self.params.runtime.micro_batch)
        total = torch.zeros((), device=self.device)
        for i, (positions, counted) in enumerate(parts):
            began = time.perf_counter()
            _, frames = next(loader)
            self.waited_seconds += time.perf_counter() - began
            with self._exchange(last=i == len(parts) - 1):
                total += self._backward(positions, frames, counted, len(batch))
        loss = self._mean_over_processes(total)
        if not math.isfinite(loss):
            ids = [self._record(p).video_id for p in batch]
            raise TrainingError(
                f"the loss of step {step} (epoch {step // self.plan.steps_per_epoch}) is {loss}; "
                f"its videos: {', '.join(ids)}; lower train.lr or use train.precision=bf16 or fp32"
            )
        self.scaler.unscale_(self.optimizer)
        if train.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), train.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.clips_seen += len(batch)
        return {"step": step, "loss": loss, "lr": train.lr * factor}

    def _record(self, position: int) -> Record:
        return self.clips.records[position % len(self.clips.records)]

    def _exchange(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged between processes with the last micro-batch of a step."""
        if last or not isinstance(self.loss, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.loss.no_sync()

    def _backward(
        self, positions: list[int], frames: Tensor, counted: bool, batch_size: int
    ) -> Tensor:
        """Add one micro-batch's gradients; returns its part of the step's loss."""
        labels = torch.tensor([self._record(p).label for p in positions], device=self.device)
        frames = normalise(frames.to(self.device, non_blocking=True))  # [b, T, 3, S, S]
        precision = self.params.train.precision
        with torch.autocast(self.device.type, DTYPES[precision], enabled=precision != "fp32"):
            loss = self.loss(frames, labels, counted, batch_size)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _mean_over_processes(self, value: Tensor) -> float:
        if dist.is_initialized():
            dist.all_reduce(value)
        return float(value) / world_size()

    def _validate(self, step: int) -> float:
        """Top-1 on the validation list; keeps the best model if asked to."""
        top1 = self._top1()
        if not self.best or top1 > self.best["val_top1"]:
            self.best = {"epoch": step / self.plan.steps_per_epoch, "val_top1": top1}
            if self.params.train.select == "best" and rank() == 0:
                checkpoint.save_model(self.model, self.state_dir / "best.safetensors", {})
        return top1

    def _top1(self) -> float:
        """Single-view top-1 (percent) of the present weights on the validation list."""
        share = list(range(len(self.val_clips.records)))[rank() :: world_size()]
        features = encode_videos(
            self.model,
            self.val_clips,
            share,
            device=self.device,
            micro_batch=self.params.runtime.micro_batch,
            precision=self.params.test.precision,
            workers=self.params.runtime.workers,
        )
        with torch.no_grad():
            scores = self.model.score(features, class_embeddings(self.model, self.text).cpu())
        labels = torch.tensor([self.val_clips.records[p].label for p in share])
        correct = sum(gather_objects(int((scores.argmax(dim=1) == labels).sum())))
        return 100 * correct / len(self.val_clips.records)

    def _average(self, step: int) -> None:
        """Keep the running mean of the weights after each of the last `average_epochs` epochs."""
        epoch, rest = divmod(step, self.plan.steps_per_epoch)
        count = epoch - (self.params.train.epochs - self.params.train.average_epochs)
        if rest or count < 1:
            return
        for name, value in self.model.state_dict().items():
            mean = self.average.setdefault(name, torch.zeros_like(value))
            if value.is_floating_point():
                mean += (value - mean) / count
            else:  # counters of batch normalisation
                mean.copy_(value)

    def _finish(self) -> dict[str, float]:
        """Write the model file, forget the training state, return the metrics."""
        metrics: dict[str, float] = {}
        if self.params.train.select == "best" and self.best:
            barrier()  # rank 0 has written it
            self.model.load_state_dict(read_safetensors(self.state_dir / "best.safetensors")[0])
        if self.average:
            self.model.load_state_dict(self.average)
            metrics["val_top1_average"] = self._top1()
        if rank() == 0:
            checkpoint.save_model(self.model, checkpoint.MODEL_FILE, self.metadata)
            with torch.no_grad():
                checkpoint.save_classifier(class_embeddings(self.model, self.text))
            checkpoint.remove_state(self.state_dir)
        losses = [row["loss"] for row in self.history]
        metrics |= {"steps": len(losses), "epochs": self.params.train.epochs}
        if losses:
            tail = losses[-self.plan.steps_per_epoch :]
            metrics["loss_last_epoch"] = sum(tail) / len(tail)
            metrics["val_top1_last"] = self.history[-1]["val_top1"]
            metrics["val_top1_best"] = self.best["val_top1"]
            metrics["epoch_best"] = self.best["epoch"]
        seconds = time.perf_counter() - self.started
        say(
            f"trained {len(losses)} steps; {self.clips_seen} clips in this call's {seconds:.0f} s, "
            f"{100 * self.waited_seconds / seconds:.0f}% of it waiting for data"
        )
        return metrics

    def _resume(self) -> int:
        """Load the state of an interrupted identical run; returns the steps already taken."""
        state = checkpoint.load_state(self.state_dir)
        if state is None:
            return 0
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scaler.load_state_dict(state.scaler)
        self.history, self.best = state.history, state.best
        self.average = {k: v.to(self.device) for k, v in state.average.items()}
        if self.live is not None:
            print(f"resuming after step {state.step} of {self.plan.total_steps}", flush=True)
            for row in self.history:
                self._log_live(row)
        return state.step

    def _save_state(self, step: int) -> None:
        if rank() == 0:
            state = checkpoint.TrainingState(
                step=step,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                scaler=self.scaler.state_dict(),
                history=self.history,
                best=self.best,
                average=self.average,
            )
            checkpoint.save_state(state, self.state_dir)
        barrier()

    def _log(self, row: dict[str, float], bar: tqdm) -> None:
        self.history.append(row)
        seconds = time.perf_counter() - self.started
        bar.set_postfix_str(
            f"loss {row['loss']:.3f}, lr {row['lr']:.2e}, {self.clips_seen / seconds:.1f} clips/s, "
            f"wait {100 * self.waited_seconds / seconds:.0f}%",
            refresh=False,
        )
        bar.update()
        self._log_live(row)

    def _log_live(self, row: dict[str, float]) -> None:
        if self.live is None:
            return
        for key in ("loss", "lr", "val_top1"):
            if key in row:
                self.live.log_metric(key, row[key], timestamp=False)
        self.live.next_step()
