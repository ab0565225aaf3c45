"""CLIP's text tower as part of a model, for methods that train it."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class TextTower(nn.Module):
    """Token ids -> text embeddings.

    Args:
        clip_model: any open_clip model; becomes part of this module, and loses its vision tower and
            logit_scale.
    """

    def __init__(self, clip_model: nn.Module) -> None:
        super().__init__()
        del clip_model.visual, clip_model.logit_scale
        self.tower = clip_model

    def forward(self, token_ids: Tensor) -> Tensor:
        """Embeddings [..., D] float32, L2-normalised, of token ids [..., L] int64."""
        tower: Any = self.tower
        embeddings = tower.encode_text(token_ids.flatten(0, -2))  # [..., L] -> [N, L] -> [N, D]
        embeddings = functional.normalize(embeddings.float(), dim=-1)
        return embeddings.unflatten(0, token_ids.shape[:-1])  # [N, D] -> [..., D]
