"""Gradients of one optimizer step, whatever the number of processes and micro-batches.

A loss over single clips is summed over micro-batches and processes. A text tower that such a loss
trains encodes the texts of all classes once for the step: the gradients of all micro-batches with
respect to the texts are added up, and the last one carries them back into the tower.

A loss that compares the videos of a step is computed once, over the features of the whole step
(GradCache, Gao et al., arXiv 2101.06983):

    1. features and texts of every micro-batch without a graph, gathered from all processes
    2. the loss of the whole step, and its gradient with respect to features and texts
    3. every micro-batch again, with a graph that carries its rows of these gradients back

The third pass is the chain rule: with f = encode(clips; w), dL/dw = dL/df * df/dw, and dL/df is
known from the second pass. So only one micro-batch has a graph at a time, and memory does not grow
with their number. With a single micro-batch, the graph of 1. is kept and nothing is encoded twice.

A second gradient at other weights (`raw_clip.Interpolation`) is added to that of the step before
gradients are exchanged.

Only batch normalization (ResNet towers) depends on the split: it normalizes over a micro-batch, and
keeps the statistics of the first process. `split_settings` records the split of such a run.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from clipzoo.clips.encoding import autocast
from clipzoo.config import AugmentConfig
from clipzoo.methods.parts.method import Batch, Method, StepClips
from clipzoo.models.text import ClassText
from clipzoo.runtime.distributed import arrive, gather_rows, rank, world_size
from clipzoo.tensors import send, send_indices
from clipzoo.train.copies import Copies
from clipzoo.train.dealing import MicroBatch, filled, has_batch_norm
from clipzoo.train.mixing import mix_clips
from clipzoo.train.raw_clip import Interpolation


class _Forward(nn.Module):
    """The forward pass that DistributedDataParallel wraps."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(
        self, inputs: Tensor, clips: StepClips, text: ClassText | None
    ) -> tuple[Tensor, ClassText | None]:
        """What the loss takes of some clips, and of some texts, if any."""
        encoded = self.method.encode_training(inputs, clips)
        return encoded, None if text is None else self.method.class_text(text)


def _distributed(forward: nn.Module, device: torch.device, has_batch_norm: bool) -> nn.Module:
    """The module with gradients that are averaged over processes."""
    with warnings.catch_warnings():
        # torch 2.15 prefers a name that 2.8 does not have.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            forward,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=has_batch_norm,  # no other buffers change
        )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What `StepGradients.add` is told of a step, but for its clips."""

    number: int
    labels: Tensor
    parts: Sequence[MicroBatch]
    templates: Tensor | None


class _TrainedTexts:
    """The texts of a step, [P, K, D], whose gradients are carried back to their tower once.

    All parts but the last get a copy that is cut off from the graph and gathers their gradients.
    """

    def __init__(self, text: ClassText) -> None:
        self._text = text
        self._copy = text.class_embeddings.detach().requires_grad_()

    def for_part(self, last: bool) -> ClassText:
        return self._text if last else replace(self._text, class_embeddings=self._copy)

    def carry(self) -> Tensor:
        """A scalar whose backward pass gives the texts the gathered gradients."""
        if self._copy.grad is None:  # the step has one part
            return torch.zeros((), device=self._copy.device)
        return (self._text.class_embeddings * self._copy.grad).sum()


class StepGradients:
    """Adds the gradients of a step's mean loss to a method's parameters.

    Args:
        method: in training mode; DistributedDataParallel averages its gradients over processes.
        text: the texts of all classes.
        device: where the method and the texts are.
        precision: fp32, or fp16 or bf16 under autocast (features and texts; the loss is float32).
        scaler: scales the loss, for fp16.
        seed: of the run, for what a method draws.
        mixing: how clips are mixed and labels smoothed; None = they are not.
        interpolation: the weights of a second gradient; None = without one.
    """

    def __init__(
        self,
        method: Method,
        text: ClassText,
        *,
        device: torch.device,
        precision: str,
        scaler: torch.amp.GradScaler,
        seed: int = 0,
        mixing: AugmentConfig | None = None,
        interpolation: Interpolation | None = None,
    ) -> None:
        self.method, self.text, self.device = method, text, device
        self.precision, self.scaler = precision, scaler
        self.seed, self.mixing, self.interpolation = seed, mixing, interpolation
        self.copies = Copies(device) if device.type == "cuda" else None
        self._local: nn.Module = _Forward(method)
        self._forward = self._local
        if dist.is_initialized():
            self._forward = _distributed(self._local, device, has_batch_norm(method))

    def add(
        self,
        labels: Tensor,
        parts: Sequence[MicroBatch],
        inputs: Iterable[Tensor],
        templates: Tensor | None = None,
        step: int = 0,
    ) -> Tensor:
        """Compute the mean loss of a step and its gradients, which must be None before.

        Nothing here waits for a GPU: what is sent to it is sent without blocking, and what depends
        on labels and places alone is computed on the CPU.

        Args:
            labels: [B] int64 in [0, K), of the whole step, the same on every process; on the CPU.
            parts: from `micro_batches(B, ...)`.
            inputs: the clips of each part: uint8 frames [b, T, 3, S, S], or int64 tokens [b, L].
            templates: [B] int64 in [0, P): the template of each clip's text, if the method
                `draws_templates`; on the CPU, the same on every process.
            step: number of the step in the run, from 0.

        Returns:
            the loss, a scalar on the device, equal on all processes. With an interpolation, its
            weighted loss is added.
        """
        one = _Step(number=step, labels=labels, parts=parts, templates=templates)
        if self.interpolation is None:
            return self._add(one, inputs, 1.0, self._forward)
        kept = list(inputs)
        with self.interpolation.weights(step):
            # Not through DistributedDataParallel: gradients are exchanged with those below.
            second = self._add(one, kept, self.interpolation.loss_weight, self._local)
        return second + self._add(one, kept, 1.0, self._forward)

    def _add(
        self, step: _Step, inputs: Iterable[Tensor], weight: float, forward: nn.Module
    ) -> Tensor:
        """Add the gradients of `weight` times the loss at the current weights; returns that loss.

        They are exchanged between processes if `forward` is DistributedDataParallel.
        """
        if self.method.compares_videos:
            return self._whole_step(step, list(inputs), weight, forward)
        total = torch.zeros((), device=self.device)
        labels = send(step.labels, self.device)
        with autocast(self.device, self.precision):
            text = self.method.class_text(self.text)  # [P, K, D]
        texts = _TrainedTexts(text) if text.class_embeddings.requires_grad else None
        for i, (part, clips) in enumerate(zip(step.parts, inputs, strict=True)):
            last = i == len(step.parts) - 1
            with self._exchange(forward, last=last):
                some = _rows(labels, part.places)  # [B] -> [b]
                of_step = self._clips(part, step.number)
                clips, targets = self._mixed(clips, some, of_step)
                with autocast(self.device, self.precision):
                    features, _ = forward(clips, of_step, None)
                batch = Batch(labels=some, texts=some, targets=targets)
                classes = text if texts is None else texts.for_part(last)
                loss = self.method.loss(features, batch, classes)
                # A mean over b clips becomes their share of the mean over B: times b / B. The
                # exchange averages over processes: times their number, it is a sum.
                loss = loss * len(some) * part.counted * world_size() / len(labels) * weight
                carried = self.scaler.scale(loss)
                if texts is not None and last:
                    carried = carried + texts.carry()
                carried.backward()
            total += loss.detach()
        if dist.is_initialized():
            dist.all_reduce(total)
        return total.double() / world_size()  # takes back the factor from above

    def _mixed(
        self, inputs: Tensor, labels: Tensor, clips: StepClips
    ) -> tuple[Tensor, Tensor | None]:
        """The clips of a part on the device, and their soft targets [b, K], or None."""
        inputs = self._send(inputs)
        if self.mixing is None:
            return inputs, None
        return mix_clips(inputs, labels, clips, self.text.num_classes, self.mixing)

    def _clips(self, part: MicroBatch, step: int) -> StepClips:
        return StepClips(seed=self.seed, step=step, places=part.places)

    def _whole_step(
        self, step: _Step, inputs: Sequence[Tensor], weight: float, forward: nn.Module
    ) -> Tensor:
        """The loss over the features of the whole step, in the three passes described above.

        U is the number of distinct labels (or of drawn prompts) in the step, P that of templates
        (or 1); a part has b clips and u texts. Features have shape [B, D] or [B, T, D].
        """
        labels, parts = step.labels, step.parts
        step_text, texts = self._step_text(labels, step.templates)  # [P, U, D], [B]
        num_texts = step_text.num_classes
        # The texts are dealt out like the clips, since a trained text tower encodes them too.
        places = range(num_texts)[rank() :: world_size()]
        columns = filled(places[i :: len(parts)] for i in range(len(parts)))
        one_pass = len(parts) == 1

        def encode(i: int, module: nn.Module) -> tuple[Tensor, ClassText]:
            some = step_text.of_classes(columns[i].places)
            return self._encode(module, inputs[i], self._clips(parts[i], step.number), some)

        with self._repeatable(one_pass):
            # Not through DistributedDataParallel, which would exchange buffers already here.
            module = forward if one_pass else self._local
            first = [encode(i, module) for i in range(len(parts))]
        features = _gather([f for f, _ in first], parts, len(labels))  # of [b, ...] -> [B, ...]
        embeddings = _gather(
            [t.class_embeddings.transpose(0, 1) for _, t in first],  # [P, u, D] -> [u, P, D]
            columns,
            num_texts,
        )  # of [u, P, D] -> [U, P, D]
        features.requires_grad_()
        embeddings.requires_grad_()
        loss = self.method.loss(
            features,
            Batch(labels=send(labels, self.device), texts=send(texts, self.device)),
            replace(step_text, class_embeddings=embeddings.transpose(0, 1)),  # [P, U, D]
        )
        loss = loss * weight
        trained = [p for p in self.method.parameters() if p.requires_grad]
        by_features, by_texts, *by_parameters = torch.autograd.grad(
            self.scaler.scale(loss), [features, embeddings, *trained], allow_unused=True
        )  # [B, ...], [U, P, D] and the parameters' shapes
        for i, (part, column) in enumerate(zip(parts, columns, strict=True)):
            last = i == len(parts) - 1
            with self._exchange(forward, last=last):
                encoded, text = first[0] if one_pass else encode(i, forward)
                by_text = text.class_embeddings.transpose(0, 1)  # [P, u, D] -> [u, P, D]
                carried = _carry(encoded, by_features, part)
                carried += _carry(by_text, by_texts, column)
                if last:
                    # The exchange waits for the hook of every parameter, and logit_scale is only
                    # in the loss. Every process has the whole gradient of it: its mean is the same.
                    pairs = zip(trained, by_parameters, strict=True)
                    carried += sum(
                        (p * gradient).sum() for p, gradient in pairs if gradient is not None
                    )
                carried.backward()
        return loss.detach()

    def _step_text(self, labels: Tensor, templates: Tensor | None) -> tuple[ClassText, Tensor]:
        """The texts of a step, each once, and the column [B] of every clip's text in them."""
        assert self.method.draws_templates == (templates is not None)
        if templates is None:
            distinct, texts = labels.unique(return_inverse=True)  # [U], [B]
            return self.text.of_classes(distinct.tolist()), texts  # [P, K, D] -> [P, U, D]
        # A prompt is a template and a class: row p * K + k of all.
        num_classes = self.text.num_classes
        prompts, texts = (templates * num_classes + labels).unique(return_inverse=True)  # [U], [B]
        rows, columns = (prompts // num_classes).tolist(), (prompts % num_classes).tolist()
        return self.text.of_prompts(rows, columns), texts  # [P, K, D] -> [1, U, D]

    def _encode(
        self, forward: nn.Module, inputs: Tensor, clips: StepClips, text: ClassText
    ) -> tuple[Tensor, ClassText]:
        inputs = self._send(inputs)
        with autocast(self.device, self.precision):
            return forward(inputs, clips, text)

    def _send(self, inputs: Tensor) -> Tensor:
        """Clips on the device."""
        if self.copies is not None:
            return self.copies.send(inputs)  # the loader has pinned them
        return inputs.to(self.device, non_blocking=True)

    def _exchange(
        self, forward: nn.Module, *, last: bool
    ) -> contextlib.AbstractContextManager[None]:
        """The context of a forward and a backward pass of one micro-batch.

        DistributedDataParallel averages each gradient over processes as soon as its hook fires in a
        backward pass. Under no_sync gradients only add up on this process, so all micro-batches
        are exchanged at once, with the last one. no_sync must include the forward pass, which
        prepares the hooks.
        """
        if not isinstance(forward, DistributedDataParallel):
            return contextlib.nullcontext()
        if last:
            arrive()
            return contextlib.nullcontext()
        return forward.no_sync()

    @contextlib.contextmanager
    def _repeatable(self, one_pass: bool) -> Iterator[None]:
        """A first pass that leaves no trace, so that the pass with a graph repeats it exactly.

        It keeps no graph, restores the random numbers (of dropout), and updates no statistics of
        batch normalization.
        """
        if one_pass:
            yield
            return
        norms = [m for m in self.method.modules() if isinstance(m, _BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _gather(rows: Sequence[Tensor], parts: Sequence[MicroBatch], total: int) -> Tensor:
    """Rows [b, ...] of all parts and processes in the order of the step, without a graph: float32
    [total, ...], the same on every process."""
    places = [place for part in parts if part.counted for place in part.places]
    local = torch.cat([r.detach().float() for r in rows])  # of [b, ...] -> [n + fillers, ...]
    local = local[: len(places)]  # fillers are the last rows
    return gather_rows(local, send_indices(places, local.device), total)


def _rows(tensor: Tensor, places: list[int]) -> Tensor:
    """Rows [len(places), ...] of a tensor [n, ...]; a GPU is not waited for."""
    return tensor[send_indices(places, tensor.device)]


def _carry(rows: Tensor, gradients: Tensor, part: MicroBatch) -> Tensor:
    """A scalar whose backward pass gives `rows` [b, ...] the part's rows of `gradients` [B, ...].

    It is their inner product, whose derivative with respect to the rows is the gradients. They are
    multiplied by the number of processes, over which the exchange averages.
    """
    part_gradients = _rows(gradients, part.places)  # [B, ...] -> [b, ...]
    return (rows.float() * (part_gradients * (world_size() * part.counted))).sum()
