"""ActionCLIP (arXiv 2109.08472): a trained text tower, five heads, and prompts of 16 templates."""

from typing import Literal

from pydantic import Field

from clipzoo.sections import Section


class Options(Section):
    """The section `actionclip` of params.yaml."""

    head: Literal["meanP", "Conv_1D", "LSTM", "Transf", "Transf_cls"]
    """Frame embeddings -> video embedding."""
    head_layers: int = Field(ge=1, le=100)
    """Layers of the heads Transf and Transf_cls."""
    temporal_module: Literal["none", "tsm"]
    """Shifts channels between frames before each block of the vision tower."""
    joint: bool
    """One attention over the patches of all frames, in the vision tower."""
    text_tower: Literal["trained", "frozen"]
    """Whether the text tower is trained too."""
    train_sampler: Literal["ticks", "centres"]
    """Frames in training: one random frame of each part of the video, or the centres."""
    test_sampler: Literal["centres", "first"]
    """Frames in validations and tests: the centres of the parts, in one clip; or the first ones,
    and later ones in later clips."""
    eval_batch: int = Field(ge=0)
    """Videos in a batch of the authors' tests, which drop the last, partial one; 0 = no such
    protocol."""
