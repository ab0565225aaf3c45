"""clipzoo: a reproducible model zoo for CLIP video recognition.

import clipzoo
model = clipzoo.load("models/mine")  # a model folder (`clipzoo publish`)
model.predict("juggling.mp4").labels
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipzoo.serve.model import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load` is imported when it is asked for, because torch takes seconds."""
    if name != "load":
        raise AttributeError(f"module 'clipzoo' has no attribute {name!r}")
    from clipzoo.serve.model import load

    return load
