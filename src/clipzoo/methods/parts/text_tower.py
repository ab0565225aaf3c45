"""CLIP's text tower as part of a model, for methods that train it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.models.text import ClassText

NOT_FOR_TEXTS = ("visual", "logit_scale", "logit_bias", "text_decoder")
BLOCK = 256
"""Texts encoded at once without gradients: 16 templates of 400 classes are 6,400."""


class TextTower(nn.Module):
    """Token ids -> text embeddings.

    Args:
        towers: any open_clip model; becomes part of this module, and loses what is not for texts:
            its vision tower, logit_scale, SigLIP's logit_bias and CoCa's decoder of captions.
    """

    def __init__(self, towers: nn.Module) -> None:
        super().__init__()
        for name in NOT_FOR_TEXTS:  # they would have no gradients
            if getattr(towers, name, None) is not None:
                delattr(towers, name)
        self.tower = towers

    def forward(self, token_ids: Tensor) -> Tensor:
        """Embeddings [..., D] float32, L2-normalized, of token ids [..., L] int64.

        Without gradients, a bounded number of texts is encoded at once, but in an exported graph,
        in which a loop would freeze the number of its rounds.
        """
        tower: Any = self.tower
        texts = token_ids.flatten(0, -2)  # [..., L] -> [N, L]
        at_once = torch.is_grad_enabled() or torch.compiler.is_exporting()
        blocks = [texts] if at_once else texts.split(BLOCK)
        embeddings = torch.cat([tower.encode_text(block) for block in blocks])  # [N, D]
        embeddings = functional.normalize(embeddings.float(), dim=-1)
        return embeddings.unflatten(0, token_ids.shape[:-1])  # [N, D] -> [..., D]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of the tower's blocks in the backward pass."""
        tower: Any = getattr(self.tower, "text", self.tower)  # CustomTextCLIP and CoCa have one
        if tower is self.tower:  # CLIP's own setter would set that of the vision tower too
            tower.transformer.grad_checkpointing = enable
        else:
            tower.set_grad_checkpointing(enable)


def with_own_text(tower: TextTower | None, text: ClassText) -> ClassText:
    """The text as given without a tower; else with class embeddings [P, K, D] of the tower."""
    if tower is None:
        return text
    return replace(text, class_embeddings=tower(text.token_ids))  # [P, K, L] -> [P, K, D]
