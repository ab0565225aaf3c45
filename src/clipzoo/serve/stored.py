"""The frame store of a dataset, for a model that reads frames of one size and quality."""

from clipzoo.config import ConfigError, Params
from clipzoo.data.spec import load_spec
from clipzoo.data.store import Store, open_store
from clipzoo.serve.folder import FramesOfVideos


def open_frames(params: Params, dataset: str, expected: FramesOfVideos) -> Store:
    """Open the frames of a dataset, if they are as a model expects them.

    Raises:
        ConfigError: there is no such dataset, or its frames have another size, quality or rate.
        StoreError: the frames have not been extracted, or the index is damaged.
    """
    fps = load_spec(dataset).fps
    store = open_store(params, dataset)
    found = {
        "frames.size": params.frames.size,
        "frames.quality": params.frames.quality,
        "fps": fps,
    }
    allowed = dict(zip(found, (expected.size, expected.quality, expected.fps), strict=True))
    wrong = [
        f"{key}: found {found[key]}; allowed: {allowed[key]}"
        for key in found
        if found[key] != allowed[key]
    ]
    if wrong:
        raise ConfigError(
            f"{dataset}: its frames are not those that the model was trained on ({'; '.join(wrong)}"
            "); embed the video files, or extract them again"
        )
    return store
