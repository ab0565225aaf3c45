"""Weights files of others that need more than their tensors: OpenAI's and Text4Vis's.

OpenAI     TorchScript archives, or a state dict of the whole CLIP
Text4Vis   {epoch, model_state_dict: visual.*, fusion_model.*, logit_scale} or the bare tensors,
           names with or without `module.`, float16 or float32
"""

from pathlib import Path

import torch
from torch import Tensor

from clipzoo.models import archives
from clipzoo.tensors import WeightsError


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


def load_released(path: str | Path) -> dict[str, Tensor]:
    """Read a Text4Vis checkpoint of its authors.

    Returns:
        the state dict of `Text4Vis` (float32, CPU), not yet compared with any model.

    Raises:
        WeightsError: the file cannot be read safely, or is of another kind: a whole CLIP, or a
            checkpoint of BIKE or ActionCLIP.
    """
    content = archives.read_file(path)
    if "fusion_model_state_dict" in content:
        raise WeightsError(
            f"{path}: holds a head and a whole CLIP apart (fusion_model_state_dict), as BIKE and "
            "ActionCLIP save them; allowed: Text4Vis's visual.*, fusion_model.* and logit_scale"
        )
    tensors = archives.named_tensors(content, str(path))
    if "text_projection" in tensors:
        raise WeightsError(
            f"{path}: holds a whole CLIP (unexpected text_projection, token_embedding.weight, "
            "...); give it as model.weights, not as model.checkpoint"
        )
    return tensors
