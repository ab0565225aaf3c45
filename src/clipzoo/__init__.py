"""clipzoo: a reproducible model zoo for CLIP video recognition.

import clipzoo
model = clipzoo.load("models/mine")  # a model folder, as `clipzoo publish` writes it
model.predict("juggling.mp4").labels
"""

from importlib import import_module
from pathlib import Path
from typing import Any


def load(name: str | Path | None = None, device: str = "auto") -> Any:
    """Load a model folder, a model of another place (`clipzoo.serve.sources`) or, without a name,
    that of the last `dvc repro`, as a `clipzoo.serve.model.VideoModel`.

    That module is imported when it is needed, because torch takes seconds and the stages, which
    import this package, do not depend on it.
    """
    return import_module("clipzoo.serve.model").load(name, device)
