"""What a result was made with: the settings, and the environments that computed it."""

from pathlib import Path

from clipzoo.config import Params
from clipzoo.files import file_sha256, json_sha256, write_json
from clipzoo.methods import read_model_metadata
from clipzoo.paths import MODEL_FILE
from clipzoo.runtime.machine import environment


def record_provenance(params: Params, device: str, directory: str | Path) -> dict[str, str]:
    """Write settings.json: the values that a result was made with on `cpu` or `cuda`.

    They are those of `Params.settings`, and those of `runtime` that the training depended on
    (`split` in the metadata of the model file).

    Returns:
        the metrics of `MadeWith`; checkpoint_sha256 only if the run has a `model.checkpoint`.
    """
    meta = read_model_metadata()
    settings = {**params.settings(), **meta.split}
    write_json(settings, Path(directory) / "settings.json")
    environments = (meta.clip.environment, meta.environment, environment(device))
    checkpoint = {"checkpoint_sha256": meta.checkpoint_sha256} if meta.checkpoint_sha256 else {}
    return {
        "settings_sha256": json_sha256(settings),
        "training_sha256": json_sha256(meta.settings),
        "model_sha256": file_sha256(MODEL_FILE),
        "environment": "; ".join(dict.fromkeys(filter(None, environments))),
        **checkpoint,
    }
