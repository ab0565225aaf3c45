"""Where a model comes from: a folder, the model hub, or open_clip.

models/mine                  a model folder
hf:owner/name[@revision]     one that was uploaded
openclip:ViT-B-32/openai     the CLIP of a pretrained tag, nothing trained
"""

from clipzoo.config import load_params
from clipzoo.serve.folder import ModelFolder, model_of_run, read_folder
from clipzoo.tensors import WeightsError

HUB, OPEN_CLIP = "hf:", "openclip:"
"""What names that are not folders begin with."""


def read_model(name: str | None) -> ModelFolder:
    """Read the model of a name; None = that of the last `dvc repro`.

    Raises:
        ListError: the last run's class text is missing.
        WeightsError: its files are missing, damaged or cannot be downloaded, or do not fit.
        ConfigError: the name, or a key of its configuration, is wrong.
    """
    if name is None:
        try:
            return model_of_run(load_params())
        except WeightsError as error:
            raise WeightsError(
                f"{error}; without --model the model of the last `dvc repro` is used: run that, or "
                "give a model folder"
            ) from error
    if name.startswith(OPEN_CLIP):
        from clipzoo.serve.openclip import raw_clip  # slow: it imports open_clip's towers

        return raw_clip(name)
    if name.startswith(HUB):
        from clipzoo.serve.hub import fetch_folder

        return read_folder(fetch_folder(name))
    return read_folder(name)
