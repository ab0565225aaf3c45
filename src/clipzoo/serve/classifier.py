"""A method as one module of tensors, which torch.export turns into a graph.

    inputs, class text -> encode -> score, similarity -> probabilities, cosines, embedding

The graph fits any number of videos and classes, because what it passes through reads sizes from
shapes, which stay symbols in it; `len(tensor)` or a loop over blocks would become a constant.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText


class Classifier(nn.Module):
    """A method that classifies videos of one view.

    The class text is that of `Method.class_text`, computed once: a trained text tower is not part
    of the graph.

    Args:
        method: becomes part of this module; evaluation mode is the caller's.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(
        self, inputs: Tensor, class_embeddings: Tensor, token_embeddings: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Classify b videos.

        Args:
            inputs: what `Method.encode` takes: uint8 frames [b, T, 3, S, S], or token ids of
                sentences, int64 [b, L].
            class_embeddings: of P templates and K classes, float32 [P, K, D].
            token_embeddings: float32 [K, L, D], where the method needs them.

        Returns:
            `probabilities` and `cosines`, float32 [b, K], and `embedding`, float32 [b, D], of unit
            length; it is the mean over frames where the features are those of frames.
        """
        prompts = class_embeddings.shape[:2]  # P, K
        text = ClassText(
            # What scores features reads neither tokens nor names.
            token_ids=class_embeddings.new_zeros((*prompts, 0), dtype=torch.int64),  # [P, K, 0]
            class_embeddings=class_embeddings,
            class_names=[],
            token_embeddings=token_embeddings,
        )
        features = self.method.encode(inputs)  # [b, D] or [b, T, D]
        views = features[:, None]  # [b, ...] -> [b, V = 1, ...]
        parts = self.method.embedding_parts(features)  # [b, D] or [b, T, D]
        video = parts if parts.dim() == 2 else parts.mean(dim=1)  # [b, T, D] -> [b, D]
        return {
            "probabilities": self.method.score(views, text),
            "cosines": self.method.similarity(views, text)[:, 0],  # [b, 1, K] -> [b, K]
            "embedding": functional.normalize(video.float(), dim=-1),
        }
