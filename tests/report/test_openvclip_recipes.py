"""Open-VCLIP's recipes against its authors' scripts (reference/configs.csv)."""

from pathlib import Path

import pytest
from test_recipes import configs

from clipzoo.data.records import read_labels
from clipzoo.models.architectures import open_clip_name
from clipzoo.report.recipes import load_recipes
from clipzoo.report.verdicts import REFERENCE_DIR

ROOT = Path(__file__).parents[2]
ALL = {name: loaded for name, loaded in load_recipes(ROOT).items() if name.startswith("openvclip/")}
ARCHS = {"vitb16": "ViT-B-16", "vitl14": "ViT-L-14"}
READERS = {"pyav": {"pyav", "pyav_avi"}, "torchvision": {"torchvision"}}
LABELS = REFERENCE_DIR / "labels"


def test_there_are_both_towers_on_all_datasets():
    names = sorted(name.removeprefix("openvclip/") for name in ALL)
    assert [sum(kind in name for name in names) for kind in ("vitb16", "vitl14")] == [4, 4]
    assert sum(name.startswith("k400-") for name in names) == 2


@pytest.mark.parametrize("name", ALL)
def test_values_are_those_of_the_authors_script(name: str):
    recipe, values = ALL[name]
    config = configs("openvclip")[recipe.authors.config]
    assert ARCHS[config["MODEL.ARCH"]] == open_clip_name(values["model.arch"])
    frames = (config["DATA.NUM_FRAMES"], config["DATA.SAMPLING_RATE"])
    assert frames == (str(values["model.num_segments"]), str(values["openvclip.window_stride"]))
    assert config["MODEL.TEMPORAL_MODELING_TYPE"] == "expand_temporal_view"
    assert values["openvclip.attention"] == "neighbors"
    assert values["openvclip.windows"] in READERS[config["DATA.DECODING_BACKEND"]]
    num_classes = len(read_labels(LABELS / f"{values['data.class_names']}.csv"))
    assert int(config["MODEL.NUM_CLASSES"]) == num_classes
    views = (int(config["TEST.NUM_ENSEMBLE_VIEWS"]), int(config["TEST.NUM_SPATIAL_CROPS"]))
    assert views == (values["test.clips"], values["test.crops"])
    assert views == (values["zero_shot.clips"], values["zero_shot.crops"])
    shortest = int(config["DATA.TRAIN_JITTER_SCALES"].strip("[]").split(",")[0])
    assert shortest == values["test.short_side_px"] == values["augment.short_side_px"]
    assert int(config["DATA.TEST_CROP_SIZE"]) == values["model.input_px"]
    folder = config["DATA.PATH_TO_DATA_DIR"]
    assert (config["TRAIN.ENABLE"] == "True") == (values["train.epochs"] > 0)
    if "600" not in name and not values["train.epochs"]:
        assert folder.split("/")[-1].split("_")[0] in values["data.dataset"]
        assert config["TEST.PATCHING_MODEL"] == "True"


@pytest.mark.parametrize("tower", ["vitb16", "vitl14"])
def test_training_is_that_of_the_authors_script(tower: str):
    recipe, values = ALL[f"openvclip/k400-{tower}-f8"]
    config = configs("openvclip")[recipe.authors.config]

    def ratio(key: str) -> float:
        return float(config[key]) / float(config["SOLVER.BASE_LR"])

    assert float(config["SOLVER.BASE_LR"]) == values["train.lr"]
    assert ratio("SOLVER.WARMUP_START_LR") == pytest.approx(values["train.warmup_start_share"])
    assert ratio("SOLVER.COSINE_END_LR") == pytest.approx(values["train.min_lr_share"])
    expected = {
        "train.epochs": int(config["SOLVER.MAX_EPOCH"]),
        "train.warmup_epochs": float(config["SOLVER.WARMUP_EPOCHS"]),
        "train.batch_size": int(config["TRAIN.BATCH_SIZE"]),
        "train.weight_decay": float(config["SOLVER.WEIGHT_DECAY"]),
        "train.decay_vectors": config["SOLVER.ZERO_WD_1D_PARAM"] == "False",
        "train.grad_clip": float(config["SOLVER.CLIP_GRAD_L2NORM"]),
        "train.interpolated_loss_weight": float(config["TRAIN.LINEAR_CONNECT_LOSS_RATIO"]),
        "train.interpolated_share": float(config["TRAIN.LINEAR_CONNECT_SAMPLE_R"]),
        "train.activation_checkpointing": config.get("MODEL.USE_CHECKPOINT") == "True",
    }
    assert {key: values[key] for key in expected} == expected
    assert float(config["TRAIN.LINEAR_CONNECT_SAMPLE_L"]) == 0
    assert (config["SOLVER.LR_POLICY"], config["SOLVER.COSINE_AFTER_WARMUP"]) == ("cosine", "True")
    assert (config["AUG.ENABLE"], config["SOLVER.OPTIMIZING_METHOD"]) == ("False", "adamw")
    longest = int(config["DATA.TRAIN_JITTER_SCALES"].strip("[]").split(",")[1])
    assert longest == values["augment.short_side_px"] * 8 / 7
    assert values["train.average_epochs"] == values["train.epochs"] - 1  # from epoch 2 on


@pytest.mark.parametrize("name", ALL)
def test_the_share_of_clip_is_that_of_the_authors_tests(name: str):
    _, values = ALL[name]
    arch = {"ViT-B/16": "b16", "ViT-L/14": "l14"}[values["model.arch"]]
    tests = [c for n, c in configs("openvclip").items() if f"testing/temporal_test_{arch}/" in n]
    assert {float(config["TEST.PATCHING_RATIO"]) for config in tests} == {
        values["train.raw_clip_share"]
    }
    assert len(tests) == 4


def test_templates_are_those_of_mote_and_names_are_split():
    mote = load_recipes(ROOT)["mote/k400-vitb16-f8"][1]["text.templates"]
    assert all(values["text.templates"] == mote for _, values in ALL.values())
    assert len(set(mote)) == 28
    names, official = (read_labels(LABELS / f"{n}.csv") for n in ("ucf101_openvclip", "ucf101"))
    assert [name.replace(" ", "").casefold() for name in names] == [n.casefold() for n in official]
    assert names[100] == "Yoyo"
