"""What Text4Vis and ActionCLIP share: towers, a temporal module, a head on the frames of a clip."""

from typing import Protocol

from torch import Tensor, nn

from clipzoo.methods.parts.actionclip_heads import video_head
from clipzoo.methods.parts.heads import head_sizes
from clipzoo.methods.parts.method import Method
from clipzoo.methods.parts.raw import check_segments, frame_embeddings
from clipzoo.methods.parts.temporal import with_temporal_module
from clipzoo.methods.parts.text_tower import TextTower, with_own_text
from clipzoo.models.text import ClassText


class VideoOptions(Protocol):
    """The options that both methods have."""

    @property
    def head(self) -> str: ...
    @property
    def head_layers(self) -> int: ...
    @property
    def temporal_module(self) -> str: ...
    @property
    def joint(self) -> bool: ...
    @property
    def text_tower(self) -> str: ...


class VideoMethod(Method):
    """Videos of T frames as embeddings; and classes, if the text tower is trained too.

    Args:
        towers: any open_clip model. Its vision tower (changed in place by `temporal_module` and
            `joint`) and logit_scale become part of this module, and so does its text tower if it is
            trained; otherwise only its sizes are read.
        num_segments: T, frames per clip.

    Raises:
        ConfigError: the vision tower does not support an option.
    """

    uses_head: bool = True
    """Whether there are frames for the head to combine."""

    def __init__(self, towers: nn.Module, options: VideoOptions, num_segments: int) -> None:
        super().__init__(towers)
        # The order is that of the tensors in model files. The text tower comes last, because it
        # takes the towers apart.
        visual = towers.get_submodule("visual")
        self.visual = with_temporal_module(
            visual, options.temporal_module, options.joint, num_segments
        )
        sizes = head_sizes(towers, num_segments)
        self.fusion_model = video_head(
            options.head, layers=options.head_layers, num_segments=num_segments, **sizes
        )
        self.logit_scale = nn.Parameter(towers.get_parameter("logit_scale").detach().clone())
        self.text = TextTower(towers) if options.text_tower == "trained" else None
        self.num_segments = num_segments

    def video_embeddings(self, pixels: Tensor, *keys: Tensor) -> Tensor:
        """Video embeddings [b, D], before L2 normalization, of normalized frames [b, T, 3, S, S].

        Args:
            pixels: T is `num_segments`.
            keys: what else the head takes.

        Raises:
            ValueError: T is not `num_segments`.
        """
        check_segments(pixels, self.num_segments)
        features = frame_embeddings(self.visual, pixels)  # [b, T, D]; [b, 1, D] if joint
        if not self.uses_head:
            return features.flatten(1)  # [b, 1, D] -> [b, D]
        return self.fusion_model(features, *keys)  # [b, T, D] -> [b, D]

    def class_text(self, text: ClassText) -> ClassText:
        """The text as given, or with class embeddings [P, K, D] of the trained text tower."""
        return with_own_text(self.text, text)
