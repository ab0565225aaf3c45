"""Files that parameters name, as dependencies: another content runs the stage again that reads it.

DVC cannot depend on a path that may be empty. So the stage `check_names`, which runs every time,
writes the digests of the files that each stage reads.
"""

from pathlib import Path

from clipzoo.config import Params, is_file_name
from clipzoo.files import file_sha256, write_json

GIVEN_DIR = Path("data/given_files")


def given_files(params: Params) -> dict[str, dict[str, str]]:
    """The files that parameters name, by stage and dotted key; '' and tags are none."""
    scorer = params.methods.get("bike_attributes", {})
    named = {
        "prepare_clip": {"model.weights": params.model.weights},
        "attributes": {
            f"bike_attributes.{key}": str(scorer.get(key, ""))
            for key in ("lexicon", "train_json", "val_json", "weights")
        },
        "train": {"model.checkpoint": params.model.checkpoint},
    }
    return {
        stage: {
            key: value
            for key, value in files.items()
            if value and (not key.endswith(".weights") or is_file_name(value))
        }
        for stage, files in named.items()
    }


def write_given_files(params: Params) -> None:
    """Write data/given_files/<stage>.json: the SHA-256 of each file by its key, '' = missing."""
    for stage, files in given_files(params).items():
        digests = {
            # Of a missing file, the stage that reads it says so.
            key: file_sha256(path) if Path(path).is_file() else ""
            for key, path in files.items()
        }
        write_json(digests, GIVEN_DIR / f"{stage}.json")
