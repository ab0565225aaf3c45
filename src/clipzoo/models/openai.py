"""What marks OpenAI's own weights: TorchScript archives, or a state dict of the whole CLIP."""

from pathlib import Path

import torch

from clipzoo.models import archives


def is_openai(path: str | Path) -> bool:
    """Whether a weights file is OpenAI's own: one of their archives, or a state dict of one.

    The archives keep the input size among the parameters, and have float16 convolutions beside a
    float32 logit_scale. Other files in OpenAI's naming (LAION's, say) may have been trained with
    GELU, which their tensors do not tell.
    """
    content = archives.read_file(path)
    mixed = {"visual.conv1.weight": torch.float16, "logit_scale": torch.float32}
    return archives.NOT_WEIGHTS[0] in content or all(
        getattr(content.get(name), "dtype", None) == dtype for name, dtype in mixed.items()
    )
