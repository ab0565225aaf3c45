"""Recipes made so small that they run through the stages in seconds, on the demo's videos."""

import json
from pathlib import Path
from typing import Any

from clipzoo.report.recipes import recipe_names, recipe_settings

ROOT = Path(__file__).parent.parent.parent

SMALL = {
    "data.dataset": "demo_shapes",
    "data.demo": ["demo_shapes", "demo_unseen"],
    "data.datasets": ["demo_shapes", "demo_unseen"],
    "data.class_names": "",
    "data.split": 1,
    "frames.size": 36,
    "frames.shard_videos": 20,
    "demo.train_videos": 2,
    "demo.val_videos": 1,
    "demo.unseen_videos": 1,
    "demo.pretrain_steps": 3,
    "demo.pretrain_batch": 8,
    "model.arch": "ViT-demo-16",
    "model.weights": "demo",
    "model.checkpoint": "",
    "model.input_px": 32,
    "text4vis.head_layers": 1,
    "bike.head_layers": 1,
    "mote.head_layers": 1,
    "actionclip.head_layers": 1,
    "attributes.datasets": ["demo_shapes"],
    "attributes.arch": "",
    "attributes.weights": "",
    "attributes.template": "{}",
    "attributes.train_json": "",
    "attributes.val_json": "",
    "bike_attributes.prefix": "",  # the stand-in's text tower has room for 12 tokens
    "bike_attributes.num_attributes": 2,
    "fusion.with": [],  # the other recipe would have to run first
    "train.batch_size": 12,
    "train.warmup_epochs": 1,
    "train.precision": "fp32",  # CPU
    "train.val_precision": "fp32",
    "train.checkpoint_every": 2,
    "test.short_side_px": 36,
    "test.precision": "fp32",
}
SHORT_SIDE_PX = 36
EVAL_BATCH = 20
"""Of ActionCLIP's tests: 40 of the 48 validation videos."""
MOST_FRAMES = 4
MOST_EPOCHS = 2


def shrunken(recipe: str) -> dict[str, Any]:
    """Values, by dotted key, that make a recipe's twin: tiny widths and the demo's videos.

    What makes the recipe what it is stays: head, classifier, loss, text tower, whether and how
    class names stand in templates, number of views, schedule, choice of checkpoint, few-shot picks,
    zero-shot protocols, epochs 0.
    """
    full = recipe_settings(recipe, ROOT)
    small = {key: value for key, value in SMALL.items() if key in full and full[key] != value}
    small["recipe"] = f"twin/{recipe}"
    small["data.zero_shot"] = ["demo_unseen"] if full["data.zero_shot"] else []
    templates = [short_template(template) for template in full["text.templates"]]
    small["text.templates"] = list(dict.fromkeys(templates))  # long ones may end alike
    small["augment.short_side_px"] = min(full["augment.short_side_px"], SHORT_SIDE_PX)
    small["actionclip.authors_test_batch"] = min(
        full.get("actionclip.authors_test_batch", 0), EVAL_BATCH
    )
    small["data.shots"] = min(full["data.shots"], 2)
    small["data.classes"] = "all" if full["data.classes"] == "all" else "base"
    small["model.num_segments"] = min(full["model.num_segments"], MOST_FRAMES)
    small["train.epochs"] = min(full["train.epochs"], MOST_EPOCHS)
    small["train.val_every"] = min(full["train.val_every"], MOST_EPOCHS)
    small["train.average_epochs"] = min(full["train.average_epochs"], MOST_EPOCHS)
    small["train.milestones"] = [m for m in full["train.milestones"] if m < MOST_EPOCHS]
    small["zero_shot.interpolation"] = full["zero_shot.interpolation"][:2]
    return {key: value for key, value in small.items() if key in full and full[key] != value}


def short_template(template: str) -> str:
    """The last word before the class name, and what follows: the stand-in's text tower has room
    for 12 tokens."""
    before, _, after = template.partition("{}")
    return " ".join([*before.split()[-1:], "{}" + after])


def different_twins() -> list[str]:
    """Recipes of which no two have the same twin, so that each twin need run only once."""
    found: dict[str, str] = {}
    for name in recipe_names(ROOT):
        values = {**recipe_settings(name, ROOT), **shrunken(name), "recipe": ""}
        found.setdefault(json.dumps(values, sort_keys=True), name)
    return list(found.values())
