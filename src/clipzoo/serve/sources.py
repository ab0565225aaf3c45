"""Where a model comes from: a folder, the model hub, or open_clip.

models/mine                  a model folder
hf:owner/name[@revision]     one that was uploaded
openclip:ViT-B-32/openai     the CLIP of a pretrained tag, nothing trained
"""

from pathlib import Path

from clipzoo.config import ConfigError, load_params
from clipzoo.files import few
from clipzoo.serve.folder import CONFIG_NAME, WEIGHTS_NAME, ModelFolder, model_of_run, read_folder
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
        except (WeightsError, ConfigError) as error:
            if isinstance(error, ConfigError) and Path("params.yaml").exists():
                raise
            raise type(error)(
                f"{error}; without --model the model of the last `dvc repro` is used: run that, or "
                f"give a model folder, {HUB}OWNER/NAME or {OPEN_CLIP}ARCH/TAG"
            ) from error
    if name.startswith(OPEN_CLIP):
        from clipzoo.serve.openclip import raw_clip  # slow: it imports open_clip's towers

        return raw_clip(name)
    if name.startswith(HUB):
        from clipzoo.serve.hub import fetch_folder

        return read_folder(fetch_folder(name))
    if not (Path(name) / CONFIG_NAME).exists():
        inside = sorted(str(path.parent) for path in Path(name).glob(f"*/{CONFIG_NAME}"))
        raise WeightsError(
            f"{Path(name) / CONFIG_NAME}: no such file; a model folder has {CONFIG_NAME} and "
            f"{WEIGHTS_NAME}, and `clipzoo publish RECIPE OUT` writes one"
            + (f" (did you mean {few(inside, separator=' or ')}?)" if inside else "")
        )
    return read_folder(name)
