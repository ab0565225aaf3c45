"""ViFi-CLIP's recipes against its authors' configs (reference/configs.csv)."""

from pathlib import Path

import pytest
from test_recipes import configs

from clipzoo.clips.selection import listed_classes
from clipzoo.config import BASE_CLASSES_DIR
from clipzoo.data.records import read_labels, read_official_names
from clipzoo.report.recipes import load_recipes
from clipzoo.report.verdicts import REFERENCE_DIR

ROOT = Path(__file__).parents[2]
ALL = {name: loaded for name, loaded in load_recipes(ROOT).items() if name.startswith("vificlip/")}
LABELS = REFERENCE_DIR / "labels"


def settings(name: str) -> dict:
    return ALL[name][1]


def test_there_are_recipes_of_all_kinds():
    names = sorted(name.removeprefix("vificlip/") for name in ALL)
    kinds = {"k400": 6, "zero-shot": 10, "base-to-novel": 12, "hmdb51": 4, "ucf101": 4, "ssv2": 4}
    assert {kind: sum(n.startswith(kind) for n in names) for kind in kinds} == kinds
    assert sum(bool(recipe.authors.config) for recipe, _ in ALL.values()) == len(names) - 1 == 39


@pytest.mark.parametrize("name", [n for n, (recipe, _) in ALL.items() if recipe.authors.config])
def test_values_are_those_of_the_authors_config(name: str):
    """Keys that a config lacks have the defaults of the authors' utils/config.py."""
    recipe, values = ALL[name]
    config = configs("vificlip")[recipe.authors.config]
    assert int(config["DATA.NUM_FRAMES"]) == values["model.num_segments"]
    assert config["MODEL.ARCH"] == values["model.arch"]
    for_all = name.split("/")[1].startswith(("base-to-novel", "zero-shot"))  # as for `both`
    assert for_all or config["TRAINER.ViFi_CLIP.USE"] == values["vificlip.trained"]
    assert config.get("TRAINER.ViFi_CLIP.ZS_EVAL", "False") == "False"
    base_to_novel = values["data.classes"] != "all"
    labels = f"{values['data.class_names'] or values['data.dataset']}.csv"
    num_classes = len(read_labels(LABELS / labels))
    if base_to_novel:
        path = BASE_CLASSES_DIR / f"{values['data.classes']}.csv"
        num_classes = len(listed_classes(path, LABELS / labels))
    assert int(config["DATA.NUM_CLASSES"]) == num_classes
    multi_view = config.get("TEST.MULTI_VIEW_INFERENCE") == "True"
    views = (values["test.clips"], values["test.crops"], values["test.short_side_px"])
    assert views == ((4, 3, 224) if multi_view else (1, 1, 256))
    assert (values["vificlip.test_sampler"] == "random") == multi_view
    if not values["train.epochs"]:
        return
    assert int(config.get("TRAIN.EPOCHS", 30)) == values["train.epochs"]
    assert float(config["TRAIN.LR"]) == values["train.lr"]
    batch = int(config["TRAIN.BATCH_SIZE"]) * int(config["TRAIN.ACCUMULATION_STEPS"])
    assert batch * recipe.authors.config_gpus == values["train.batch_size"]
    assert int(config["TRAIN.BATCH_SIZE"]) == values["augment.mix_group"]
    shots = values["data.shots"]
    assert (f"few_shot_{shots}" in config["DATA.TRAIN_FILE"]) == (shots > 0 and not base_to_novel)
    assert int(config.get("SAVE_FREQ", 1)) == values["train.val_every"]


@pytest.mark.parametrize("name", ALL)
def test_what_no_config_changes(name: str):
    """The defaults of the authors' utils/config.py and what their code has fixed."""
    values = settings(name)
    fixed = {
        "model.pixels": "imagenet-bilinear",
        "text.templates": ["a photo of a {}."],
        "augment.crop": "multi_scale_5",
        "augment.color_jitter": 0.8,
        "augment.grayscale": 0.2,
        "augment.mixup_alpha": 0.8,
        "augment.cutmix_alpha": 1.0,
        "augment.label_smoothing": 0.1,
        "train.tower_lr_ratio": 1.0,
        "train.weight_decay": 0.001,
        "train.beta2": 0.98,
        "train.schedule": "cosine_from_start",
        "train.min_lr_share": 0.01,
        "train.warmup_epochs": 5,
        "data.min_frames": 0,
    }
    assert {key: values[key] for key in fixed} == fixed


def test_the_wrong_names_of_hmdb51_are_those_of_the_authors():
    """In their order, and on the videos that they are on in their lists."""
    path = LABELS / "hmdb51_vificlip.csv"
    names, official = read_labels(path), read_official_names(path)
    assert names == read_labels(LABELS / "hmdb51_actionclip.csv")
    assert official == read_labels(LABELS / "hmdb51.csv")
    wrong = {i: (n, o) for i, (n, o) in enumerate(zip(names, official, strict=True)) if n != o}
    assert wrong == {
        20: ("kick ball", "kick"),
        21: ("kick", "kick ball"),
        44: ("sword exercise", "sword"),
        45: ("sword", "sword exercise"),
    }
    chosen = {n: values["data.class_names"] for n, (_, values) in ALL.items() if "hmdb51" in n}
    assert {n for n, names in chosen.items() if names != "hmdb51_vificlip"} == {
        "vificlip/zero-shot-hmdb51-vitb16-f32-right-names"
    }
