"""A stand-in for DVC, and what finished runs leave."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
import yaml

from clipzoo.commands import planned, zoo
from clipzoo.config import Params, load_params
from clipzoo.files import file_sha256, json_sha256
from clipzoo.report import kept
from clipzoo.settings import training_settings
from clipzoo.tensors import write_safetensors


def select(*arguments: Any) -> list[str]:
    return [run.params.recipe for run in zoo.select(*arguments)]


def is_done(name: str, **options: Any) -> bool:
    return zoo.is_done(planned.plan(name, planned.Options(**options)))


class Dvc:
    """Stands for the dvc command: notes the active recipe of each call, and leaves its results."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.recipes: list[str] = []
        self.commands: list[list[str]] = []

    def __call__(self, command, check, env, pass_fds=()):
        assert not check
        params = load_params("params.yaml")
        self.recipes.append(params.recipe)
        self.commands.append(command[1:])
        leave(params, params.settings())
        return subprocess.CompletedProcess(command, int(params.recipe == self.failing))


def leave(params: Params, settings: dict[str, Any]) -> None:
    """What a run leaves: its model, whose content does not matter here, predictions, metrics."""
    recipe, checkpoint = params.recipe, Path(params.model.checkpoint)
    trained = training_settings(settings)
    clip = {"arch": "ViT-B-32", "input_px": 32, "quick_gelu": True, "source": "x"}
    clip["environment"] = ""
    model = {"clip": clip, "method": "raw", "num_segments": 1, "options": {}}
    model |= {"recipe": recipe, "settings": trained}
    write_safetensors({"x": torch.zeros(1)}, kept.MODEL_FILE, {"model": json.dumps(model)})
    for name in kept.PREDICTION_FILES[:2]:
        write(kept.PREDICTIONS_DIR / name, f"{name} of {recipe}")
    values = {
        "settings_sha256": json_sha256(settings),
        "training_sha256": json_sha256(trained),
        "model_sha256": file_sha256(kept.MODEL_FILE),
    }
    if checkpoint.is_file():
        values["checkpoint_sha256"] = file_sha256(checkpoint)
    for stem in ["test", *(f"zero_shot_{dataset}" for dataset in settings["data.zero_shot"])]:
        write(Path(f"metrics/{recipe}/{stem}.json"), json.dumps(values))
        write(Path(f"plots/{recipe}/{stem}/settings.json"), json.dumps(settings))
    for parent in params.fusion.with_:
        about = kept.read_mapping(kept.kept_predictions(parent)[-1])
        fused = {**values, "video_model_sha256": about.get("model_sha256", "")}
        write(Path(f"metrics/{recipe}/fused.json"), json.dumps(fused))
        write(Path(f"plots/{recipe}/fused/settings.json"), json.dumps(settings))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def add_fused(name: str, parent: str) -> None:
    """A recipe of the attributes branch that is fused with another one."""
    params = {
        "model": {"method": "bike_attributes", "inputs": "attributes"},
        "attributes": {"datasets": ["demo_shapes"]},
        "fusion": {"with": [parent]},
    }
    Path(f"recipes/{name}.yaml").write_text(yaml.safe_dump({"about": "a test", "params": params}))


def finish(name: str, options: planned.Options = planned.UNCHANGED, /, **changes: Any) -> None:
    """What a finished run leaves of a recipe; nothing of it is kept for others."""
    run = planned.plan(name, options)
    planned.place_files(run)
    leave(run.params, run.params.settings() | changes)
