"""Every recipe against the published facts, and wrong recipes."""

import csv
import math
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clipzoo.clips.sampling import TRAIN_SAMPLERS
from clipzoo.config import ConfigError, load_params
from clipzoo.data.records import read_labels
from clipzoo.report.recipes import (
    Recipe,
    fused_recipes,
    load_recipe,
    load_recipes,
    recipe_names,
    recipe_settings,
)
from clipzoo.report.verdicts import REFERENCE_DIR, named_set

ROOT = Path(__file__).parents[2]
ALL = load_recipes(ROOT)
NAMES = list(ALL)
PAPERS = {
    "text4vis": "arXiv 2207.01297",
    "bike": "arXiv 2301.00182",
    "actionclip": "arXiv 2109.08472",
    "mote": "arXiv 2410.10589",
    "openvclip": "arXiv 2302.00624",
    "pe": "arXiv 2504.13181",
    "vificlip": "arXiv 2212.03640",
}
ZOO = {method: [n for n in NAMES if n.startswith(f"{method}/")] for method in PAPERS}
PUBLISHED = [name for names in ZOO.values() for name in names]
# Videos of the authors' training lists that are trained on (README of the reference data).
TRAIN_VIDEOS = {"kinetics400": 240_550, "activitynet": 12_770, "ucf101": 9_537, "hmdb51": 3_570}
TRAIN_VIDEOS["charades"] = 49_802  # segments
# Folder of each dataset's lists in video_sets.csv, and what the name of its validation list says.
LISTS_OF = {
    "kinetics400": ("k400", "val"),
    "activitynet": ("anet", "val"),
    "ucf101": ("ucf101", "val_rgb_split_{}"),
    "hmdb51": ("hmdb51", "val_rgb_split_{}"),
    "charades": ("charades", "v1_test"),
    **{f"kinetics600_split{i}": ("k600", f"test_split{i}") for i in (1, 2, 3)},
}
LISTS_BY_METHOD: dict[str, dict[str, tuple[str, str]]] = {
    "actionclip": {"kinetics400": ("k4001", "val")},
    "mote": {
        "kinetics400": ("k400", "vallist"),
        "ucf101": ("ucf101", "testlist0{}-1"),
        "hmdb51": ("hmdb51", "vallist_split{}"),
        **{f"kinetics600_split{i}": ("k600_test", f"k160_test_split{i}") for i in (1, 2, 3)},
    },
    "openvclip": {
        "kinetics400": ("weng_compress_full_splits", "test"),
        **{f"kinetics600_val_split{i}": (f"k600_split{i}", "test") for i in (1, 2, 3)},
    },
    "vificlip": {
        "kinetics400": ("k400_splits", "val"),
        "ssv2": ("ssv2_splits", "validation"),
        **{f"kinetics600_split{i}": ("k600_splits", f"ZS_split{i}") for i in (1, 2, 3)},
    },
}
# ActionCLIP's training list has 1,828 whole batches of 128.
ACTIONCLIP_TRAIN_VIDEOS = 234_000
# Keys that every config of the authors has, and those of every one that trains.
ALWAYS = {"seed", "data.num_segments", "data.input_size", "network.arch", "network.sim_header"}
TRAINING = {f"solver.{key}" for key in ("type", "epochs", "lr", "lr_warmup_step", "weight_decay")}
# The log's first start, given up before its first iteration, had 4; the one that ran had 1.
LOGGED_BATCH = {("text4vis", "exps/ucf101/ViT-L/14-336px/f16/log.txt"): 1}
# Seconds of an iteration: the table has one slow iteration of the last line of the log, whose mean
# is this; and those of the attributes branch, which comes last in the log of both.
LOGGED_SECONDS = {"text4vis/k400-vitb32-f16": 1.72, "bike/k400-vitb32-f8": 0.72}
# Of whose log the table has the best epoch of the other branch.
ATTRIBUTES = "bike/k400-vitb32-f8-attributes"
# Metrics of published.csv -> of the recipe, where the authors compute them in their own way.
MEASURED = {("bike", "map"): "authors_map"}
# ActionCLIP's tests drop the last batch, in zero-shot too, which is a test of a validation list.
MEASURED |= {("actionclip", key): "authors_top1" for key in ("top1", "full_top1")}
MEASURED["actionclip", "top5"] = "authors_top5"
BASE_TO_NOVEL = {"base_top1_mean": "base_top1", "novel_top1_mean": "novel_top1"}
BASE_TO_NOVEL["harmonic_mean"] = "base_to_novel_hmean"
MEASURED |= {("vificlip", theirs): ours for theirs, ours in BASE_TO_NOVEL.items()}
# Datasets of published.csv -> of the recipe.
DATASETS = {("pe", "kinetics400"): "kinetics400_val"}
DATASETS["openvclip", "kinetics600"] = "kinetics600_val"
# Whose authors do not publish the videos that they tested on.
WITHOUT_SETS = ("pe",)
# Whose configs have other keys; tests of their own compare them.
OTHER_KEYS = ("vificlip", "openvclip")
# Settings in which a row differs from the config that its recipe names: it has none of its own, or
# has 32 frames where the config has 8; and a random head on the raw CLIP.
UNLIKE_CONFIG = {
    "actionclip/k400-vitb16-f8": {"model.arch"},
    "actionclip/k400-vitb16-f16": {"model.arch", "model.num_segments"},
    "actionclip/k400-vitb16-f32": {"model.arch", "model.num_segments"},
    "actionclip/hmdb51-vitb16-f32": {"model.num_segments"},
    "actionclip/ucf101-vitb16-f32": {"model.num_segments"},
    "actionclip/zero-shot-kinetics400-vitb32-f8": {"actionclip.head"},
    # Their configs are those of ViT-L/14.
    **{
        f"mote/zero-shot-{dataset}-vitb16-f8": {"model.arch", "mote.head_layers"}
        for dataset in ("ucf101", "hmdb51", "kinetics600")
    },
}


def method_of(name: str) -> str:
    return name.split("/")[0]


@cache
def table(name: str, method: str) -> list[dict[str, str]]:
    with open(REFERENCE_DIR / name, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["method"] == method]


@cache
def configs(method: str) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {}
    for row in table("configs.csv", method):
        values.setdefault(row["config"], {})[row["key"]] = row["value"]
    return values


def recipe(name: str) -> Recipe:
    return ALL[name][0]


def settings(name: str) -> dict[str, Any]:
    return ALL[name][1]


def number(text: str) -> float | None:
    return float(text) if text else None


def test_there_are_recipes():
    assert len(ZOO["text4vis"]) >= 25
    assert len(ZOO["bike"]) >= 22
    assert len(ZOO["actionclip"]) == 9
    assert len(ZOO["mote"]) == 9
    assert len(ZOO["pe"]) == 5
    assert "demo" in NAMES
    assert not any(name.endswith("base") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoint_is_the_one_that_training_selects(name):
    assert recipe(name).checkpoint == settings(name)["train.select"]


@pytest.mark.parametrize("name", NAMES)
def test_published_video_sets_are_those_of_the_dataset(name):
    """Of the very split, and as large as the dataset's own file says where it does."""
    values, published = settings(name), recipe(name).video_sets
    stems = {"test", *(f"zero_shot_{dataset}" for dataset in values["data.zero_shot"])}
    stems |= {"fused"} if fused_recipes(values) else set()
    known = name in PUBLISHED and method_of(name) not in WITHOUT_SETS
    assert published.keys() == (stems if known else set())
    for stem, list_name in published.items():
        zero_shot = stem.startswith("zero_shot_")
        dataset = stem.removeprefix("zero_shot_") if zero_shot else values["data.dataset"]
        lists = LISTS_OF | LISTS_BY_METHOD.get(method_of(name), {})
        folder, file = lists[dataset]
        spec = yaml.safe_load((ROOT / "datasets" / f"{dataset}.yaml").read_text())
        split = values["data.split"]
        whole = "full_for_zeroshot" in list_name
        assert whole <= zero_shot
        assert list_name.startswith(f"{folder}/")
        assert whole or file.format(split) in list_name
        sizes = [spec.get("num_whole")] if whole else spec.get("num_val", [None] * 3)
        expected = sizes[0 if whole else split - 1]
        assert expected in (None, named_set(list_name).num_videos)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_opens_with_what_to_expect(name):
    head = []
    for line in (ROOT / "recipes" / f"{name}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line)
    run = f"make use RECIPE={name} && dvc repro"
    if others := fused_recipes(settings(name)):
        run = f"make zoo RECIPES={name} (it runs {others[0]} first)"
    assert f"# Run: {run}" in head
    assert any(line.startswith("# GPU hours: ") for line in head)
    if name in PUBLISHED:
        paper = PAPERS[method_of(name)]
        assert recipe(name).paper == paper
        assert any(paper in line for line in head)
        text = " ".join(head)
        for row in recipe(name).published:
            numbers = re.findall(rf"\b{row.metric} ([\d.]+\d)\b", text)
            assert row.value is None or row.value in map(float, numbers)


def as_measured(row: dict[str, str]) -> tuple[str, str]:
    """Dataset and metric of a published row, by the names of our datasets and metrics files."""
    metric = MEASURED.get((row["method"], row["metric"]), row["metric"])
    if " split " in row["dataset"]:  # Kinetics-600: each is a dataset
        metric = f"full_{metric}"
    if (row["method"], row["dataset"], metric) == ("openvclip", "hmdb51", "full_top1"):
        metric = "listed_top1"  # their list of all videos leaves those in neither set out
    if row["notes"].startswith("video + attributes"):
        metric = f"fused_{metric}"
    dataset = DATASETS.get((row["method"], row["dataset"]), row["dataset"])
    return dataset.replace(" split ", "_split"), metric


@pytest.mark.parametrize("method", PAPERS)
def test_every_published_row_is_in_exactly_one_recipe(method):
    published_rows = Counter(
        (
            *as_measured(row),
            row["arch"],
            int(row["num_frames"]),
            int(row["input_px"]),
            row["clips"] and int(row["clips"]),
            row["crops"] and int(row["crops"]),
            number(row["published"]),
            number(row["published_std"]),
            row["source"],
            row["notes"],
            row["task"].startswith(("few-shot", "base-to-novel")),
            row["task"] == "zero-shot",
        )
        for row in table("published.csv", method)
    )
    recipe_rows = Counter(
        (
            row.dataset,
            row.metric,
            settings(name)["model.arch"],
            settings(name)["model.num_segments"],
            settings(name)["model.input_px"],
            "" if row.clips is None else row.clips,
            "" if row.crops is None else row.crops,
            row.value,
            row.std,
            row.source,
            row.notes,
            settings(name)["data.shots"] > 0,
            settings(name)["train.epochs"] == 0,
        )
        for name in ZOO[method]
        for row in recipe(name).published
    )
    assert recipe_rows == published_rows


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_have_tolerances_and_views_that_are_evaluated(name):
    values = settings(name)
    for row in recipe(name).published:
        assert row.value is None or 0 < row.tolerance <= 1
        section = "zero_shot" if values["data.zero_shot"] else "test"
        views = (values[f"{section}.clips"], values[f"{section}.crops"])
        assert (row.clips, row.crops) in (views, (1, 1), (None, None))


@pytest.mark.parametrize(
    ("method", "configs", "logs"),
    [("text4vis", 20, 10), ("bike", 20, 10), ("actionclip", 9, 1), ("mote", 8, 0)],
)
def test_most_recipes_have_a_config_and_many_a_log(method, configs, logs):
    """Else the tests below would compare nothing."""
    authors = [recipe(name).authors for name in ZOO[method]]
    assert sum(bool(a.config) for a in authors) >= configs
    assert sum(bool(a.log) for a in authors) >= logs
    assert sum(bool(recipe(name).parent) for name in ZOO[method]) >= 4


@pytest.mark.parametrize(
    "name", [n for n in PUBLISHED if recipe(n).authors.config and method_of(n) not in OTHER_KEYS]
)
def test_values_are_those_of_the_authors_config(name):
    authors, values = recipe(name).authors, settings(name)
    config, method = configs(method_of(name))[authors.config], values["model.method"]
    pairs = {
        "seed": "seed",
        "data.num_segments": "model.num_segments",
        "data.input_size": "model.input_px",
        "network.arch": "model.arch",
        "network.sim_header": f"{method}.head",
        "network.interaction": f"{method}.interaction",
        "network.temporal_layer": f"{method}.head_layers",
        "network.num_experts": f"{method}.num_experts",
        "data.shot": "data.shots",
        "data.select_topk_attributes": f"{method}.num_attributes",
        "solver.type": "train.schedule",
        "solver.epochs": "train.epochs",
        "solver.lr": "train.lr",
        "solver.lr_warmup_step": "train.warmup_epochs",
        "solver.weight_decay": "train.weight_decay",
        "solver.clip_ratio": "train.tower_lr_ratio",
    }
    if method == "actionclip":
        del pairs["solver.lr"], pairs["solver.clip_ratio"]  # test_actionclip_s_own_values
    unlike = UNLIKE_CONFIG.get(name, set())
    trains = "solver.epochs" in config
    assert config.keys() >= (ALWAYS | TRAINING if trains else ALWAYS)
    assert ("data.shot" in config) == (values["data.shots"] > 0)
    for theirs, ours in pairs.items():
        if theirs in config and (ours in values or ours.split(".")[0] != method):
            equal = type(values[ours])(config[theirs]) == values[ours]
            assert equal != (ours in unlike), ours
    if not trains:
        assert values["train.epochs"] == 0
    if not trains or method == "actionclip":
        return
    plain = "ce" if method == "mote" else "nce"
    assert config["solver.loss_type"].lower() == values.get(f"{method}.loss", plain)
    assert int(config["logging.eval_freq"]) == values["train.val_every"]
    accumulated = int(config["data.batch_size"]) * int(config["solver.grad_accumulation_steps"])
    if authors.config_gpus:
        assert accumulated * authors.config_gpus == values["train.batch_size"]
    else:
        assert f"{accumulated} clips a GPU" in " ".join(recipe(name).notes)


@pytest.mark.parametrize("name", ZOO["actionclip"])
def test_actionclip_s_own_values(name):
    """Where its configs have other keys, or mean something else by the same ones."""
    values, file = settings(name), recipe(name).authors.config
    config = configs("actionclip")[file]
    assert values["actionclip.temporal_module"] == "none"
    assert config.get("network.tsm", "False") == config.get("network.joint", "False") == "False"
    assert len(values["text.templates"]) == len(set(values["text.templates"])) == 16
    assert values["text.templates"][7] == "{}"
    assert (values["actionclip.text_tower"], values["actionclip.test_sampler"]) == (
        "trained",
        "centers",
    )
    # On Kinetics-400, the 128 of the training config drop as many as the 64 of the test config.
    tested = configs("actionclip")[file.replace("_train", "_test")]
    num = named_set(recipe(name).video_sets["test"]).num_videos
    dropped = num % values["actionclip.authors_test_batch"]
    assert dropped == num % int(tested["data.batch_size"])
    assert f"{num - dropped:,}" in " ".join(recipe(name).notes)
    if "solver.epochs" not in config:
        return
    lr = float(config["solver.lr"])
    assert values["train.lr"] == pytest.approx(lr * float(config["solver.f_ratio"]))
    assert values["train.lr"] * values["train.tower_lr_ratio"] == pytest.approx(lr)
    assert config["solver.ratio"] == "1"
    assert (values["train.beta1"], values["train.beta2"]) == (0.9, 0.98)
    assert int(config["data.batch_size"]) == values["train.batch_size"]
    assert int(config["logging.eval_freq"]) == values["train.val_every"]
    assert int(config["data.randaug.N"]) == values["augment.randaugment_n"]
    if values["augment.randaugment_n"]:
        assert int(config["data.randaug.M"]) == values["augment.randaugment_m"]
    random = config.get("data.random_shift") == "True"
    assert values["actionclip.train_sampler"] == ("ticks" if random else "centers")
    crop = ("crop", "short_side_px", "color_jitter", "grayscale")
    assert [values[f"augment.{key}"] for key in crop] == ["multi_scale", 0, 0.8, 0.2]


@pytest.mark.parametrize("name", ZOO["pe"])
def test_pe_core_is_evaluated_as_its_authors_do(name):
    """At the input size of the architecture, on which nothing is trained, in 28 templates."""
    import open_clip

    values = settings(name)
    vision = (open_clip.get_model_config(values["model.arch"]) or {})["vision_cfg"]
    assert values["model.input_px"] == values["test.short_side_px"] == vision["image_size"]
    tag = open_clip.get_pretrained_cfg(values["model.arch"], values["model.weights"])
    assert (tag["resize_mode"], tag["interpolation"]) == ("squash", "bilinear")
    evaluated = {
        "model.method": "raw",
        "raw.fusion": "mean",
        "raw.test_sampler": "linspace",
        "model.num_segments": 8,
        "frames.size": "source",
        "test.precision": "fp16",
        "train.epochs": 0,
    }
    assert {key: values[key] for key in evaluated} == evaluated
    media = ("photo", "video", "example", "demonstration")
    verbs = ("using ", "doing ", "during ", "performing ", "practicing ")
    subjects = ("{}", "a person {}", *(f"a person {verb}{{}}" for verb in verbs))
    expected = [f"a {medium} of {subject}." for medium in media for subject in subjects]
    assert values["text.templates"] == expected
    spec = yaml.safe_load((ROOT / "datasets" / f"{values['data.dataset']}.yaml").read_text())
    assert (spec["evaluation_only"], spec["reader"]) == (True, "video")


def test_the_class_names_of_pe_core_are_the_official_ones_without_parentheses():
    """And none of their prompts is cut at 32 tokens, where the text towers of all but one end."""
    import open_clip

    theirs, official = (
        read_labels(REFERENCE_DIR / "labels" / f"{name}.csv")
        for name in ("kinetics400_pe", "kinetics400")
    )
    changed = {old: new for old, new in zip(official, theirs, strict=True) if old != new}
    assert len(changed) == 9
    assert changed["tying knot (not on a tie)"] == "tying knot not on a tie"
    assert all(re.sub("[()]", "", old) == new for old, new in changed.items())
    values = settings(ZOO["pe"][0])
    prompts = [t.replace("{}", name) for t in values["text.templates"] for name in theirs]
    tokens = open_clip.get_tokenizer("PE-Core-B-16")(prompts)  # [28 * 400, 32]
    assert tokens.shape == (11_200, 32)
    assert (tokens != 0).sum(dim=1).max() < 32


@pytest.mark.parametrize("name", [n for n in ZOO["bike"] if "bike.train_sampler" in settings(n)])
def test_bike_s_training_sampler_is_that_of_its_dataset(name):
    """Its datasets/charades.py has ticks, datasets/video.py, which reads the others, inclusive."""
    values = settings(name)
    charades = values["data.dataset"] == "charades"
    assert values["bike.train_sampler"] == ("ticks" if charades else "inclusive")


@pytest.mark.parametrize("num_frames", [1, 5, 16, 17, 28, 40, 300])
def test_charades_trains_on_the_frames_of_the_authors(num_frames):
    """`_sample_indices` of BIKE's datasets/charades.py, for segments of several lengths: each frame
    is one of its tick; a segment of at most T frames gives all of them and random ones again."""
    values = settings("bike/charades-vitl14-336-f16")
    num, rng = values["model.num_segments"], np.random.default_rng(0)
    sample = TRAIN_SAMPLERS[values["bike.train_sampler"]]
    drawn = np.stack([sample(num_frames, num, rng) for _ in range(400)])  # [400, T]
    if num_frames <= num:
        assert all(set(clip) == set(range(num_frames)) for clip in drawn.tolist())
        assert (np.diff(drawn) >= 0).all()
        return
    ticks = [i * num_frames // num for i in range(num + 1)]
    for i in range(num):
        assert set(drawn[:, i].tolist()) == set(range(ticks[i], ticks[i + 1]))


@pytest.mark.parametrize("name", [n for n in PUBLISHED if settings(n)["train.epochs"]])
def test_randaugment_is_as_the_logs_have_it(name):
    """Of Text4Vis, all on Kinetics-400 and no other; what has no log but is a logged recipe with
    one thing changed has the same. Of BIKE, none."""
    values = settings(name)
    used = values["augment.randaugment_n"], values["augment.randaugment_m"]
    if method_of(name) == "text4vis":
        logged = recipe(name).authors.log or not recipe(name).authors.config
        assert used == ((2, 9) if logged and values["data.dataset"] == "kinetics400" else (0, 9))
    elif method_of(name) == "bike":
        assert used == (0, 9)


@pytest.mark.parametrize("name", [n for n in PUBLISHED if recipe(n).authors.log])
def test_batches_are_those_of_the_authors_log(name):
    authors, values = recipe(name).authors, settings(name)
    method, num = method_of(name), TRAIN_VIDEOS[values["data.dataset"]]
    log = next(row for row in table("training_logs.csv", method) if row["log"] == authors.log)
    per_gpu = LOGGED_BATCH.get((method, authors.log), int(log["batch_per_gpu"]))
    batch, iterations = per_gpu * authors.log_gpus, int(log["iterations_per_epoch"])
    if method == "actionclip":  # one process shares its batches out, and drops the last
        assert ACTIONCLIP_TRAIN_VIDEOS // batch == iterations
    elif method == "bike":  # which drops the last partial batch of each process
        assert math.ceil(num / authors.log_gpus) // per_gpu == iterations
    else:
        assert abs(math.ceil(num / batch) - iterations) <= 1
    assert batch * int(log["grad_accumulation"]) == authors.log_batch
    assert int(log["epochs"]) == values["train.epochs"]
    notes = " ".join(recipe(name).notes)
    if authors.log_batch != values["train.batch_size"]:
        assert "contradict" in notes
        assert str(authors.log_batch) in notes
    seconds = LOGGED_SECONDS.get(name, float(log["seconds_per_iteration"]))
    seconds *= iterations * int(log["epochs"])
    assert recipe(name).gpu_hours == pytest.approx(
        seconds * authors.log_gpus / 3600, rel=0.02, abs=0.5
    )
    for row in recipe(name).published:
        if row.source.startswith("training log") and name != ATTRIBUTES:
            epoch = row.source.removeprefix("training log, ").removesuffix(" epoch")
            assert epoch == recipe(name).checkpoint
            assert row.value == float(log[f"{epoch}_val"])


# What a model is built from; the rest of a section says how it is trained and evaluated.
MODEL_SHAPE = ("model.", "text4vis.", *(f"bike.{k}" for k in ("head", "interaction", "temp")))
MODEL_SHAPE += tuple(f"actionclip.{k}" for k in ("head", "temporal", "joint", "text_tower"))
MODEL_SHAPE += ("vificlip.trained", "openvclip.attention")


@pytest.mark.parametrize("name", [n for n in NAMES if recipe(n).parent])
def test_children_start_from_models_like_their_own(name):
    parent, values = recipe(name).parent, settings(name)
    assert values["model.checkpoint"] == f"models/zoo/{parent}.safetensors"
    differing = {
        key
        for key, value in settings(parent).items()
        if key.startswith(MODEL_SHAPE) and value != values[key]
    }
    assert differing == {"model.checkpoint"}


def models() -> dict[tuple, str]:
    """One recipe for each different model."""
    return {
        tuple(
            value
            for key, value in settings(name).items()
            if key.startswith(MODEL_SHAPE) and key not in ("model.checkpoint", "model.weights")
        ): name
        for name in NAMES
    }


@pytest.mark.parametrize("name", models().values())
def test_models_build_on_the_meta_device(name):
    from clipzoo.methods.memory.estimates import meta_model

    _, params = load_recipe(name, ROOT)
    model: Any = meta_model(params)
    assert all(parameter.is_meta for parameter in model.parameters())
    if params.model.method == "vificlip":
        assert (model.text is None) == (params.options["trained"] == "image")
    if "head" not in params.options:
        return
    has_head = params.options.get("head", "Transf") not in ("None", "meanP")
    assert bool(list(model.fusion_model.parameters())) == has_head
    if params.model.method in ("bike", "mote"):
        return
    assert model.num_segments == params.model.num_segments
    assert (model.text is not None) == (params.options["text_tower"] == "trained")


def test_the_demo_recipe_is_the_parameter_file_as_shipped():
    git = ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", "params.yaml"]
    if shutil.which("git") and subprocess.run(git, check=False, capture_output=True).returncode:
        pytest.skip("params.yaml was changed here")
    values = load_params(ROOT / "params.yaml").settings()
    if values["recipe"] != "demo":
        pytest.skip("params.yaml holds another recipe")
    assert values == settings("demo"), "change params.yaml and recipes/demo.yaml together"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "own"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "recipes/demo.yaml", folder.parent)
    (folder / "base.yaml").write_text("params: {train: {epochs: 7, lr: 0.5}}")
    return tmp_path


def write(root: Path, **values: Any) -> str:
    (root / "recipes/own/one.yaml").write_text(yaml.safe_dump({"about": "a test", **values}))
    return "own/one"


def test_a_key_of_an_earlier_version_is_refused_in_the_file_that_has_it(root):
    name = write(root)
    (root / "recipes/own/base.yaml").write_text("params: {bike: {map_softmaxes: 3}}")
    with pytest.raises(
        ConfigError,
        match=r"own/base\.yaml: params: bike\.map_softmaxes is a key of "
        r"an earlier version; write bike\.authors_map_softmaxes",
    ):
        load_recipe(name, root)


def test_milestones_of_a_recipe_are_checked_when_it_is_read(root):
    name = write(root, params={"train": {"schedule": "multistep", "milestones": [5, 4]}})
    with pytest.raises(ConfigError, match=r"one\.yaml: params: train\.milestones: found \[5.*asc"):
        load_recipe(name, root)


def test_values_come_from_demo_then_base_then_the_recipe(root):
    name = write(root, params={"train": {"lr": 0.25}, "data": {"zero_shot": []}})
    values = recipe_settings(name, root)
    demo = recipe_settings("demo", root)
    changed = {key: values[key] for key in values if values[key] != demo[key]}
    assert changed == {
        "recipe": "own/one",
        "train.epochs": 7,
        "train.lr": 0.25,
        "data.zero_shot": [],
    }
    assert recipe_names(root) == ["demo", "own/one"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"params": {"train": {"epoch": 1}}}, r"unknown key train\.epoch.*did you mean epochs"),
        ({"params": {"modle": {}}}, r"unknown key modle.*did you mean model"),
        ({"params": {"train": 3}}, r"train: found 3"),
        ({"params": {"train": {"lr": "fast"}}}, r"train\.lr: found 'fast'"),
        ({"params": {"runtime": {"workers": 3}}}, r"params\.runtime may not be set"),
        ({"params": {"recipe": "x"}}, r"params\.recipe may not be set"),
        ({"params": 3}, "found no mapping"),
        ({"tolerance": 3}, "unknown key tolerance"),
        ({"parent": "own/two"}, r"unknown recipe 'own/two'.*did you mean own/one"),
        ({"published": [{"metric": "top1"}]}, r"missing key published\[0\]\.dataset"),
    ],
)
def test_wrong_recipes_are_refused_by_file_and_key(root, values, message):
    name = write(root, **values)
    with pytest.raises(ConfigError, match=f"(?s)own/one.yaml.*{message}"):
        recipe_settings(name, root)


def test_unknown_recipes_are_refused_with_near_names(root):
    write(root)
    with pytest.raises(ConfigError, match=r"unknown recipe 'own/onee' \(did you mean own/one"):
        load_recipe("own/onee", root)
    (root / "recipes/own/one.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"own/one\.yaml is not YAML"):
        load_recipe("own/one", root)
