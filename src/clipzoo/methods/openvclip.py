"""Open-VCLIP: CLIP whose frames see their neighbors, tuned and mixed with CLIP in weight space.

Paper: Weng, Yang, Li, Wu, Jiang, "Open-VCLIP: Transforming CLIP to an Open-vocabulary Video Model
via Interpolated Weight Optimization", ICML 2023, arXiv 2302.00624.

In every block of the vision tower the tokens of frame t attend to those of frames t + 1, t - 1 and
t (section 3.1), so that it has no new parameters. With frame embeddings x_t, the embedding c_k
of a class (normalized mean over templates, frozen) and logit_scale, which is trained:

    z = exp(logit_scale) * mean_t(x_t / |x_t|)        not normalized again
    logits:   z . c_k
    training: cross entropy of the logits, at the weights theta and at weights drawn between those
              of CLIP and theta (section 3.2)                    train.interpolated_loss_weight
    model:    the mean of the weights after each epoch           train.average_epochs
              and the raw CLIP, share theirs (section 3.3)       train.raw_clip_share
    testing:  softmax over k of the mean over views of the logits

Parameters have the names of the released checkpoints without their `model.`: visual.*, logit_scale.

Deviations from the authors' code (commit 047a817 of wengzejia1/Open-VCLIP): logits are float32
under autocast. The authors sum the logits over views; the mean gives the same order of classes, and
a softmax makes probabilities of it. Where a file is mixed with the raw CLIP, theirs multiplies the
latter's weights in float16. Frames are resized as uint8, with antialiasing, not as normalized
floats without it. Windows count frames from the first one of the video, where theirs compare
presentation times; clips of Kinetics that begin at another time than 0 differ by that.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.clips.windows import Windows
from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.parts.neighbors import with_neighbors
from clipzoo.methods.parts.raw import check_segments, frame_embeddings
from clipzoo.methods.parts.released import WHOLE_CLIP, refuse_others, vision_tensors
from clipzoo.models import archives
from clipzoo.models.text import ClassText
from clipzoo.sections import Section
from clipzoo.tensors import WeightsError


class Options(Section):
    """The section `openvclip` of params.yaml."""

    attention: Literal["neighbors", "frame"]
    """What the tokens of a frame attend to: those of the frames before and after too, or not."""
    windows: Literal["pyav", "pyav_avi", "torchvision"]
    """Whose clips of equal time, as in `Windows.reader`."""
    window_stride: int = Field(ge=1, le=10_000)
    """Frames from one frame of a clip to the next, in a video of `window_fps` (16)."""
    window_fps: float = Field(gt=0, le=1000)
    """Frames a second that the stride counts in (30); in videos of other rates a clip spans the
    same time."""


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of {model_state: a whole CLIP, each name after `model.`}.

    The text tower in the file is left out, since it is frozen.

    Raises:
        WeightsError: there is no whole CLIP, or it is of another method.
    """
    refuse_others(content, where, "openvclip")
    tensors = archives.named_tensors(content, where)
    if missing := WHOLE_CLIP - tensors.keys():
        raise WeightsError(
            f"{where}: missing {', '.join(sorted(missing))}; found {', '.join(list(tensors)[:3])}, "
            "...; allowed: model_state with model.visual.*, model.logit_scale and the text tower, "
            "a whole CLIP in OpenAI's names"
        )
    return vision_tensors(tensors)


class OpenVclip(Method):
    """The model that is trained, tested and saved; the frozen text tower is not part of it.

    Args:
        towers: an open_clip model. Its vision tower (changed in place) and logit_scale become part
            of this module.
        num_segments: T, frames per clip.

    Raises:
        ConfigError: the vision tower is not a ViT, which `attention: neighbors` needs.
    """

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers)
        visual = towers.get_submodule("visual")
        neighbors = options.attention == "neighbors"
        self.visual = with_neighbors(visual, num_segments) if neighbors else visual
        self.logit_scale = nn.Parameter(towers.get_parameter("logit_scale").detach().clone())
        self.num_segments = num_segments
        self.windows = Windows(options.windows, options.window_stride, options.window_fps)

    def encode(self, inputs: Tensor) -> Tensor:
        """Video embeddings z [b, D] float32 of uint8 frames [b, T, 3, S, S]; their length is at
        most exp(logit_scale)."""
        return self.video_embeddings(self.normalize(inputs))

    def video_embeddings(self, pixels: Tensor) -> Tensor:
        """z [b, D] float32, even under autocast, of normalized frames [b, T, 3, S, S].

        Raises:
            ValueError: T is not `num_segments`.
        """
        check_segments(pixels, self.num_segments)
        frames = frame_embeddings(self.visual, pixels)  # [b, T, D]
        mean = functional.normalize(frames.float(), dim=-1).mean(dim=1)  # [b, T, D] -> [b, D]
        return self.logit_scale.float().exp() * mean

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """Mean cross entropy over the classes of `text`, of z [b, D]."""
        return functional.cross_entropy(video_logits(features, text), batch.texts)

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """Cosines [N, V, K] float32 of z [N, V, D]; templates are averaged."""
        return functional.normalize(features.float(), dim=-1) @ text.ensemble().T

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of z [N, V, D]: softmax of the mean logits over views."""
        mean = features.float().mean(dim=1)  # [N, V, D] -> [N, D]
        return video_logits(mean, text).softmax(dim=-1)


def video_logits(features: Tensor, text: ClassText) -> Tensor:
    """z . c_k [..., K] float32, even under autocast, of z [..., D] and the templates' ensemble."""
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ text.ensemble().T  # [..., D] @ [D, K] -> [..., K]
