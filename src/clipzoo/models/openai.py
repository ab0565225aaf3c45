"""Recognise OpenAI's weights, whose towers have QuickGELU."""

from pathlib import Path

import torch

from clipzoo.models import archives


def is_openai(path: str | Path) -> bool:
    """Whether a weights file is one of OpenAI's archives, or the state dict of one.

    Their archives store the input size among the parameters, and have float16 convolutions but a
    float32 logit_scale. Other files with OpenAI's names (LAION's, say) may have been trained with
    GELU, which cannot be seen from the tensors.

    Raises:
        WeightsError: as `read_file`.
    """
    content = archives.read_file(path)
    mixed = {"visual.conv1.weight": torch.float16, "logit_scale": torch.float32}
    return archives.NOT_WEIGHTS[0] in content or all(
        getattr(content.get(name), "dtype", None) == dtype for name, dtype in mixed.items()
    )
