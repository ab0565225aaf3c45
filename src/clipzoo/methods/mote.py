"""MoTE: CLIP's vision tower, a temporal Transformer with experts, a frozen ensemble of prompts.

Paper: Zhu, Wang, Hu, Dang, Lin, Zhou, Liu, Chen, "MoTE: Reconciling Generalization with
Specialization for Visual-Language to Video Knowledge Transfer", NeurIPS 2024, arXiv 2410.10589.

With frame embeddings x_t = visual(frame_t), their mean x, class embeddings c_k (28 prompts, each of
unit length, averaged and scaled to unit length again), and d_j, those of the classes trained on:

    h_t = transformer(x + positions)_t     each MLP one of E experts, or the mean of their weights
    training: CE(e) + merged_loss_weight CE(m) + residual_loss_weight mean(m_h^2), where
              e and m are mean_t(x_t + h_t) with drawn experts, and with experts merged by
              softmax((1 .. E) / tau) with a drawn tau, and m_h is the h of m;
              CE is the cross entropy of exp(logit_scale) * cos(., c_k)
    testing:  v = x + s mean_t(h_t), experts merged with equal shares; for each view
              softmax over k of cos(v, c_k), without a scale; mean over views
              s = exp(-(1 - a) / modulation_temperature), where a is the mean, over the
              nearest_classes c_k nearest to x, of their cosine with the most similar of the
              nearest_classes d_j nearest to x (temporal feature modulation)

In each step every block draws an expert, i of 1 .. E with the probability softmax(1 .. E)_i, and a
tau, uniformly from `TEMPERATURES`. s is 1 in training, and on the classes trained on.

The features of a clip carry what s needs: x, mean_t(h_t), and the nearest d_j.

Parameters have the names of the released checkpoints: visual.*, fusion_model.*, logit_scale;
fusion_model.spe_cls_feature is d. The authors test with visual.* and logit_scale of 0.99 the
trained weights and 0.01 the raw ones; here that share is a parameter of training
(`train.raw_clip_share`), and the model file has the mixture.

Deviations from the authors' code: experts and taus are drawn for groups of `draw_group` clips of a
step, by a generator that knows the seed, the step and the group; theirs are drawn for the clips of
one process, by one generator on each. cosines are float32 under autocast. Where fewer classes than
`nearest_classes` compete, s is computed of these, where their code fails; where half of the classes
compete, it is computed of the half, and theirs of all. Their test takes a second softmax, which
changes no order of classes, so `score` has one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.experts import ExpertHead
from clipzoo.methods.parts.heads import head_sizes
from clipzoo.methods.parts.method import Batch, Method, StepClips
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.methods.parts.released import vision_and_head
from clipzoo.methods.parts.similarity import TEST_SCALE, scaled_cosines
from clipzoo.models.text import ClassText
from clipzoo.sections import Section
from clipzoo.tensors import WeightsError, send_indices

CLASSES = "fusion_model.spe_cls_feature"
"""The tensor whose number of rows is that of the classes trained on."""

PARTS = (".mlp.fc_up.", "spe_cls_feature")
"""What the names of every released head contain."""
UNIT_TOLERANCE = 1e-2
"""How far the length of a class embedding in a file may be from 1; float16 rounds by less."""
TEMPERATURES = (-9.6, -4.8, -2.4, -1.2, -0.6, 0.6, 1.2, 2.4, 4.8, 9.6, math.inf)
"""The taus of which each block draws one; the last one gives all experts the same share."""


class Options(Section):
    """The section `mote` of params.yaml."""

    head_layers: int = Field(ge=1, le=1000)
    """Blocks of the temporal Transformer (4 with ViT-B/16, 6 with ViT-L/14)."""
    num_experts: int = Field(ge=1, le=1000)
    """E, experts of each block (4 in the paper)."""
    draw_group: int = Field(ge=0)
    """Clips of a step that follow each other and share the drawn experts and taus: those of one
    process of the authors (64 with ViT-B/16, 48 with ViT-L/14); 0 = all clips of the step."""
    merged_loss_weight: float = Field(ge=0, le=1000)
    """Weight of the cross entropy with merged experts (0.5 in the paper)."""
    residual_loss_weight: float = Field(ge=0, le=1000)
    """Weight of the mean square of what merged experts add to the frames (0.1 in the paper)."""
    nearest_classes: int = Field(ge=1, le=1000)
    """Classes nearest to a video that the modulation compares, of the test and of the training (5
    in the paper)."""
    modulation_temperature: float = Field(gt=0, le=100)
    """How fast the modulation falls with the similarity of these classes (0.05 in the paper)."""
    view_fusion: Literal["softmax", "cosines"]
    """softmax: of each view, then the mean, as in both scripts of the authors; cosines: softmax of
    100 times their mean, as in the second number that their script for zero-shot prints."""
    train_sampler: Literal["inclusive", "ticks"]
    """Frames in training: inclusive is the authors', that of BIKE; ticks is that of Text4Vis."""
    val_min_frames: int = Field(ge=0)
    """Validations during training leave out shorter videos (none in the authors' lists)."""


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of {epoch, model_state_dict: visual.* and logit_scale,
    fusion_model_state_dict: the head's tensors, optimizer_state_dict}.

    Raises:
        WeightsError: there is no vision tower, or no head with experts, or the classes that it was
            trained on are not known.
    """
    vision, head = vision_and_head(content, where, "mote", parts=PARTS)
    tensors = vision | {f"fusion_model.{name}": tensor for name, tensor in head.items()}
    if CLASSES in tensors:
        _check_classes(tensors[CLASSES], where)
    return tensors


def _check_classes(known: Tensor, where: str) -> None:
    """Raise WeightsError unless the classes trained on [K, D] are some rows of unit length.

    Nothing else would fail without them, but s would be wrong on other classes.
    """
    found = f"the shape {list(known.shape)}"
    if known.dim() == 2 and len(known):
        lengths = known.float().norm(dim=-1)  # [K, D] -> [K]
        wrong = (lengths - 1).abs().le(UNIT_TOLERANCE).logical_not()  # those of NaN too
        if not wrong.any():
            return
        first = int(wrong.nonzero()[0])
        found += f", {int(wrong.sum())} rows not of unit length, e.g. row {first} of length "
        found += f"{float(lengths[first]):.4g}"
    raise WeightsError(
        f"{where}: spe_cls_feature, the embeddings of the classes trained on, by which results on "
        f"other classes are modulated: found {found}; allowed: [classes, width], rows of unit "
        "length; give a file of a finished training (the authors' code begins with zeros)"
    )


def _count(tensors: Mapping[str, Tensor], before: str) -> int:
    """How many numbered parts a head has: 1 + the largest number that follows `before`."""
    names = (name.partition(before)[2] for name in tensors if name.startswith("fusion_model."))
    numbers = (name.partition(".")[0] for name in names)
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


class Mote(Method):
    """The model that is trained, tested and saved; the frozen text tower is not part of it.

    Args:
        towers: any open_clip model. Its vision tower and logit_scale become part of this module; of
            its text tower only the sizes are read.
        num_segments: T, frames per clip.
    """

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers)
        self.visual = towers.get_submodule("visual")
        sizes = head_sizes(towers, num_segments)
        layers, experts = options.head_layers, options.num_experts
        self.fusion_model = ExpertHead(layers=layers, num_experts=experts, **sizes)
        self.logit_scale = nn.Parameter(towers.get_parameter("logit_scale").detach().clone())
        self.options = options
        self.train_sampler = options.train_sampler
        self.val_min_frames = options.val_min_frames

    def make_room(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take on the number of classes that a file was trained on.

        Raises:
            WeightsError: the file has other numbers of layers or experts than the options.
        """
        for key, part in (("head_layers", ".resblocks."), ("num_experts", ".fc_up.")):
            found, expected = _count(tensors, part), getattr(self.options, key)
            if found not in (0, expected):
                what = key.removeprefix("head_").removeprefix("num_")
                raise WeightsError(
                    f"{where} does not fit the model: found {found} {what} in its head; mote.{key} "
                    f"is {expected}; set it to {found}, or give a file with {expected} {what}"
                )
        if CLASSES in tensors and tensors[CLASSES].dim() == 2:
            rows, width = len(tensors[CLASSES]), self.fusion_model.spe_cls_feature.shape[1]
            known = self.fusion_model.spe_cls_feature.new_zeros(rows, width)  # [K, D]
            self.fusion_model.spe_cls_feature = known

    def start_training(self, text: ClassText) -> None:
        """Keep the embeddings of the classes that it is trained on."""
        known = self.fusion_model.spe_cls_feature
        self.fusion_model.spe_cls_feature = text.ensemble().to(known.device)  # [P, K, D] -> [K, D]

    def encode(self, inputs: Tensor) -> Tensor:
        """x, mean_t(h_t) and the nearest classes trained on, [b, 2 + n, D] float32, of uint8 frames
        [b, T, 3, S, S]; n is `nearest_classes`, or the number of those classes if it is smaller."""
        return self.features(frame_embeddings(self.visual, self.normalize(inputs)))

    def features(self, frames: Tensor) -> Tensor:
        """The features [b, 2 + n, D] of frame embeddings [b, T, D]."""
        spatial = frames.float().mean(dim=1)  # [b, T, D] -> [b, D]
        temporal = self.fusion_model(frames).float().mean(dim=1)  # [b, T, D] -> [b, D]
        trained = self.fusion_model.spe_cls_feature  # [K, D]
        with torch.autocast(frames.device.type, enabled=False):
            cosines = functional.normalize(spatial, dim=-1) @ trained.T  # [b, K]
        num_nearest = min(self.options.nearest_classes, trained.shape[0])
        nearest = cosines.topk(num_nearest).indices  # [b, n]
        return torch.cat([spatial[:, None], temporal[:, None], trained[nearest]], dim=1)

    def encode_training(self, inputs: Tensor, clips: StepClips) -> Tensor:
        """What `loss` takes of b clips, [b, 3, D] float32: e, m and the mean over frames of the
        squares of m_h; see above."""
        frames = frame_embeddings(self.visual, self.normalize(inputs))  # [b, T, D]
        size = self.options.draw_group
        rows: dict[int, list[int]] = {}  # of each group
        for row, place in enumerate(clips.places):
            rows.setdefault(place // size if size else 0, []).append(row)
        parts = []
        for group, members in rows.items():
            draws = draw_choices((clips.seed, clips.step, group), self.options)
            part = frames[send_indices(members, frames.device)]  # [b, T, D] -> [g, T, D]
            parts.append(self.training_features(part, draws))
        return torch.cat(parts)  # of [g, 3, D] -> [b, 3, D]: places ascend, and so do groups

    def training_features(self, frames: Tensor, draws: "Draws") -> Tensor:
        """As `encode_training`, of frame embeddings [b, T, D]."""
        drawn = self.fusion_model(frames, draws.experts)  # [b, T, D]
        merged = self.fusion_model(frames, draws.shares)  # [b, T, D]
        means = [(frames.float() + h).mean(dim=1) for h in (drawn, merged)]  # [b, D] each
        squares = merged.float().square().mean(dim=1)  # [b, T, D] -> [b, D]
        return torch.stack([*means, squares], dim=1)  # [b, 3, D]

    def losses(self, features: Tensor, batch: Batch, text: ClassText) -> tuple[Tensor, ...]:
        """CE(e), CE(m) and mean(m_h^2), float32 scalars, of features [b, 3, D] of
        `encode_training`."""
        scale = self.logit_scale.float().exp()
        drawn, merged, squares = features.unbind(dim=1)  # [b, D] each
        entropies = [
            functional.cross_entropy(
                scaled_cosines(videos, text.class_embeddings, scale), batch.texts
            )
            for videos in (drawn, merged)
        ]
        return *entropies, squares.float().mean()

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """The training loss of features [b, 3, D] of `encode_training`."""
        drawn, merged, square = self.losses(features, batch, text)
        options = self.options
        return drawn + options.merged_loss_weight * merged + options.residual_loss_weight * square

    def embedding_parts(self, features: Tensor) -> Tensor:
        """x + mean_t(h_t), as in training, where no other classes are known: [..., D] of features
        [..., 2 + n, D]."""
        return features[..., 0, :].float() + features[..., 1, :]

    def videos(self, features: Tensor, text: ClassText) -> Tensor:
        """v [..., D] float32 of features [..., 2 + n, D]."""
        spatial, temporal, trained = features[..., 0, :], features[..., 1, :], features[..., 2:, :]
        return modulation(spatial, trained, text.ensemble(), self.options) * temporal + spatial

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """cos(v, c_k) [N, V, K] float32 of features [N, V, 2 + n, D]."""
        return scaled_cosines(self.videos(features, text), text.ensemble(), 1.0)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of features [N, V, 2 + n, D]."""
        cosines = self.similarity(features, text)  # [N, V, K]
        if self.options.view_fusion == "softmax":
            return cosines.softmax(dim=-1).mean(dim=1)  # [N, V, K] -> [N, K]
        return (TEST_SCALE * cosines.mean(dim=1)).softmax(dim=-1)  # [N, V, K] -> [N, K]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn for some clips of a training step, for each block."""

    experts: list[int]
    """An expert, 0 .. E - 1."""
    shares: list[tuple[float, ...]]
    """The shares of the E experts where they are merged."""


def draw_choices(seed: Sequence[int], options: Options) -> Draws:
    """Draw the experts, and the temperatures at which they are merged, of all blocks.

    Expert i of 1 .. E has the probability softmax(1 .. E)_i, each temperature the same.

    Source: MoTE, arXiv 2410.10589, section 3.2 (stochastic routing and weight merging).

    Args:
        seed: numbers of which every combination gives other draws.
    """
    rng = np.random.default_rng(list(seed))
    blocks, num = range(options.head_layers), options.num_experts
    probabilities = merge_shares(1.0, num)
    return Draws(
        experts=[int(rng.choice(num, p=probabilities)) for _ in blocks],
        shares=[merge_shares(TEMPERATURES[rng.integers(len(TEMPERATURES))], num) for _ in blocks],
    )


def merge_shares(temperature: float, num_experts: int) -> tuple[float, ...]:
    """softmax((1 .. E) / temperature), which sums to 1; 1 / E each at an infinite one."""
    logits = [number / temperature for number in range(1, num_experts + 1)]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return tuple(power / sum(powers) for power in powers)


def modulation(spatial: Tensor, trained: Tensor, classes: Tensor, options: Options) -> Tensor:
    """s [..., 1] float32 in (0, 1], up to rounding; 1 without classes trained on.

    Source: MoTE, arXiv 2410.10589, section 3.3 (temporal feature modulation).

    Args:
        spatial: x [..., D], any norm.
        trained: its nearest classes of those trained on, [..., n, D], of unit length.
        classes: those that compete, [K, D], of unit length.
        options: `nearest_classes` and `modulation_temperature`.
    """
    if trained.shape[-2] == 0:
        return spatial.new_ones(()).expand(*spatial.shape[:-1], 1)
    cosines = functional.normalize(spatial, dim=-1) @ classes.T  # [..., K]
    # The most similar class trained on, of every class: one at a time, since [..., K, n] is large.
    best = trained[..., 0, :] @ classes.T  # [..., K]
    for j in range(1, trained.shape[-2]):
        best = torch.maximum(best, trained[..., j, :] @ classes.T)
    # Fewer classes than `nearest_classes` are filled up with some that count for nothing.
    fill = cosines.new_zeros(()).expand(*cosines.shape[:-1], options.nearest_classes)
    cosines = torch.cat([cosines, fill - torch.inf], dim=-1)  # [..., K + n]
    nearest = cosines.topk(options.nearest_classes)  # [..., n]
    counted = nearest.values.isfinite()  # [..., n]
    similar = torch.cat([best, fill], dim=-1).gather(-1, nearest.indices)  # [..., n]
    mean = similar.sum(dim=-1, keepdim=True) / counted.sum(dim=-1, keepdim=True)  # [..., 1]
    return torch.exp((mean - 1) / options.modulation_temperature)
