"""A stand-in for DVC, and what finished runs leave."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from clipzoo.commands import kept, planned, zoo
from clipzoo.config import load_params
from clipzoo.files import json_sha256


def select(*arguments: Any) -> list[str]:
    return [run.params.recipe for run in zoo.select(*arguments)]


def is_done(name: str, **options: Any) -> bool:
    return zoo.is_done(planned.plan(name, planned.Options(**options)))


class Dvc:
    """Stands for the dvc command: notes the active recipe of each call."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.recipes: list[str] = []
        self.commands: list[list[str]] = []

    def __call__(self, command, check, env, pass_fds=()):
        assert not check
        recipe = load_params("params.yaml").recipe
        self.recipes.append(recipe)
        self.commands.append(command[1:])
        kept.MODEL_FILE.parent.mkdir(exist_ok=True)
        kept.MODEL_FILE.write_text(f"model of {recipe}")
        folders = [kept.PREDICTIONS_DIR, kept.PREDICTIONS_DIR, Path("metrics") / recipe]
        for folder, name in zip(folders, kept.PREDICTION_FILES, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder == Path("metrics") / recipe and (folder / name).exists()):
                (folder / name).write_text(f"{name} of {recipe}")
        return subprocess.CompletedProcess(command, int(recipe == self.failing))


def add_fused(name: str, parent: str) -> None:
    """A recipe of the attributes branch that is fused with another one."""
    section = {"datasets": ["demo_shapes"], "fused_with": [parent]}
    params = {"model": {"method": "bike_attributes"}, "bike_attributes": section}
    Path(f"recipes/{name}.yaml").write_text(yaml.safe_dump({"about": "a test", "params": params}))


def finish(name: str, options: planned.Options = planned.UNCHANGED, /, **changes: Any) -> None:
    """What a finished run leaves of a recipe."""
    params = planned.plan(name, options).params
    name, settings = params.recipe, params.settings() | changes
    for stem in ["test", *(f"zero_shot_{dataset}" for dataset in settings["data.zero_shot"])]:
        for path, values in (
            (f"metrics/{name}", {"settings_sha256": json_sha256(settings)}),
            (f"plots/{name}/{stem}", settings),
        ):
            Path(path).mkdir(parents=True, exist_ok=True)
            file = f"{stem}.json" if path.startswith("metrics") else "settings.json"
            (Path(path) / file).write_text(json.dumps(values))
