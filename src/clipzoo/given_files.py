"""Files that parameters name, as dependencies: a stage runs again if one that it reads changes.

DVC cannot depend on a path that may be ''. So the stage `check_names` links to these files in
data/given_files/, a folder that it depends on, and writes a file of their digests for each stage
that reads them. In a clone, where the links are missing, `check_names` runs again, and as the
digests are the same, no other stage does.
"""

from pathlib import Path

from clipzoo.config import Params, is_file_name
from clipzoo.files import file_sha256, replacing, write_json

LINKS_DIR = Path("data/given_files")
DIGESTS_DIR = Path("data/digests")


def given_files(params: Params) -> dict[str, dict[str, Path]]:
    """The files that parameters name, by stage and dotted key; '' and tags name none."""
    named = {
        "prepare_clip": {"model.weights": params.model.weights, **_of_folder(params.model.arch)},
        "attributes": {
            f"attributes.{key}": getattr(params.attributes, key)
            for key in ("lexicon", "train_json", "val_json", "weights")
        },
        "train": {"model.checkpoint": params.model.checkpoint},
    }
    return {
        stage: {
            key: Path(value)
            for key, value in files.items()
            if value and (not key.endswith(".weights") or is_file_name(value))
        }
        for stage, files in named.items()
    }


def _of_folder(arch: str) -> dict[str, str]:
    """The files of `model.arch: local-dir:FOLDER`: the configuration and weights of a model."""
    folder = Path(arch.removeprefix("local-dir:"))
    if not arch.startswith("local-dir:") or not folder.is_dir():
        return {}
    return {
        f"model.arch.{path.name}": str(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".safetensors", ".bin")
    }


def record_given_files(params: Params) -> None:
    """Write data/digests/<stage>.json, the SHA-256 of each file by its key, and the links.

    A missing file is neither linked nor an error here: the stage that reads it reports it.
    """
    remove_links()
    for stage, files in given_files(params).items():
        digests = {}
        for key, path in files.items():
            if path.is_file():
                digests[key] = file_sha256(path)
                with replacing(LINKS_DIR / key, durable=False) as part:
                    part.symlink_to(path.absolute())
        write_json(digests, DIGESTS_DIR / f"{stage}.json")


def remove_links(*, broken: bool = False) -> None:
    """Remove all links, or only the `broken` ones, at which DVC would stop."""
    for path in LINKS_DIR.glob("*"):
        if path.is_symlink() and not (broken and path.exists()):
            path.unlink()
