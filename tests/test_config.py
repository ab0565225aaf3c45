"""params.yaml: every wrong key or value is refused with a message that says what to do."""

import re
import shutil
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from clipzoo import config
from clipzoo.config import ConfigError, build, load_params, replace
from clipzoo.methods import METHODS, read_options
from clipzoo.methods.text4vis import Options
from clipzoo.sections import flatten

ROOT = Path(__file__).parent.parent


def changed(tmp_path: Path, key: str, value: object, *, delete: bool = False) -> Path:
    """A copy of params.yaml in which one dotted key is set or deleted."""
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml")
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    if delete:
        del section[last]
    else:
        section[last] = value
    path = tmp_path / "params.yaml"
    yaml.dump(values, path)
    return path


def test_params_of_the_repository_load():
    params = load_params(ROOT / "params.yaml")
    assert params.data.dataset in params.data.datasets
    assert params.train.eps == 1e-8


@pytest.mark.parametrize("written", ["5e-5", "5e-05", "5.0e-5", "0.00005"])
def test_every_written_form_of_a_float_is_a_float(tmp_path, written):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("lr: 0.002", f"lr: {written}"))
    assert load_params(path).train.lr == 5e-5


def test_a_short_side_in_quotes_is_a_number(tmp_path):
    """Then both forms have one fingerprint."""
    assert load_params(changed(tmp_path, "frames.size", "36")).frames.size == 36


def test_frames_may_keep_the_size_of_their_video(tmp_path):
    assert load_params(changed(tmp_path, "frames.size", "source")).frames.size == "source"


def test_an_integer_is_accepted_where_a_float_stands(tmp_path):
    value = load_params(changed(tmp_path, "train.grad_clip", 1)).train.grad_clip
    assert value == 1.0
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("train.learning_rate", 1, ["unknown key train.learning_rate", "allowed", "lr"]),
        ("train.epoch", 1, ["unknown key train.epoch", "did you mean epochs"]),
        (
            "data.allow_missing",
            0,
            ["data.allow_missing", "write nothing", "missing DATASET --accept"],
        ),
        ("modle", {}, ["unknown key modle", "did you mean model"]),
        ("train.epochs", "ten", ["train.epochs", "'ten'", "integer"]),
        ("train.epochs", 1.5, ["train.epochs", "1.5", "integer"]),
        ("train.epochs", True, ["train.epochs", "True", "integer"]),
        ("train.epochs", -1, ["train.epochs", "-1", "or equal to 0"]),
        ("train.lr", "fast", ["train.lr", "'fast'", "number"]),
        ("train.precision", "fp8", ["train.precision", "fp16", "bf16"]),
        ("train.eps", ".nan", ["train.eps", "'.nan'", "number"]),
        ("train.eps", float("inf"), ["train.eps", "inf", "finite"]),
        ("train.milestones", [1, "x"], ["train.milestones[1]", "'x'", "number"]),
        ("train.beta1", 1, ["train.beta1", "1", "less than 1"]),
        ("train.precision", None, ["train.precision", "None", "'fp32', 'fp16' or 'bf16'"]),
        ("frames.quality", 32, ["frames.quality", "32", "less than or equal to 31"]),
        ("zero_shot.protocols", ["haf"], ["zero_shot.protocols[0]", "did you mean half"]),
        ("model.method", "text4viz", ["model.method", "'text4viz'", "did you mean text4vis"]),
        ("model.method", None, ["model.method", "None", "string"]),
        ("methods", {}, ["unknown key methods", "text4vis"]),
        ("text4vs", {}, ["unknown key text4vs", "did you mean text4vis"]),
        ("text4vis", 3, ["text4vis", "3", "mapping"]),
        ("data.datasets", "demo_shapes", ["data.datasets", "a valid list"]),
        ("data.dataset", "k400", ["data.dataset", "k400", "demo_shapes"]),
        ("data.shots", 3, ["data.shots", "3", "16"]),
        ("test.crops", 2, ["test.crops", "2", "10"]),
        ("test.crops", True, ["test.crops", "True", "integer"]),
        ("test.crops", 1.0, ["test.crops", "1.0", "integer"]),
        ("frames.size", "big", ["frames.size", "340x256", "source"]),
        ("frames.size", "Source", ["frames.size", "'Source'"]),
        ("frames.size", "0x256", ["frames.size", "'0x256'", "sides of 1 to 4096 px"]),
        ("frames.size", True, ["frames.size", "True"]),
        ("text.templates", ["no place"], ["text.templates", "no place", "{}"]),
        ("text.templates", ["{} {x}"], ["text.templates[0]", "{} {x}", "no other {"]),
        ("augment", 3, ["augment", "mapping"]),
        ("seed", 2**64, ["seed", "18446744073709551616", f"or equal to {2**64 - 1}"]),
        ("seed", -1, ["seed", "-1", "or equal to 0"]),
        ("model.input_px", 10**9, ["model.input_px", "1000000000", "less than or equal to 4096"]),
        ("model.input_px", 0, ["model.input_px", "0", "or equal to 1"]),
        ("frames.size", 5000, ["frames.size", "5000", "1 to 4096 px"]),
        ("frames.size", "9" * 5000, ["frames.size", "'999", "340x256"]),
        ("train.clip_ratio", 0.1, ["train.clip_ratio", "write train.tower_lr_ratio"]),
        ("bike.zero_shot", "head", ["bike.zero_shot is a key of an earlier", "zero_shot_scoring"]),
        ("train.milestones", [1, float("nan")], ["train.milestones[1]", "nan", "finite"]),
        ("train.lr", "5e-5", ["train.lr", "'5e-5'", "number"]),  # in quotes, it is text
        ("train.lr", 10**400, ["train.lr", "1000", "...", "number"]),
        ("train.warmup_epochs", 21, ["train.warmup_epochs", "21", "train.epochs, 20"]),
        ("train.epochs", 1, ["found 2", "-S train.epochs=1 -S train.warmup_epochs=0"]),
        ("train.steps_per_lr_update", 0, ["train.steps_per_lr_update", "0", "or equal to 1"]),
        ("demo.other_archs.eval_videos", 0, ["demo.other_archs.eval_videos", "or equal to 1"]),
        (
            "model.activation",
            "relu",
            ["model.activation", "'relu'", "'auto', 'quickgelu' or 'gelu'"],
        ),
        (
            "zero_shot.interpolation",
            [0.5, 1.5],
            ["zero_shot.interpolation[1]", "1.5", "less than or equal to 1"],
        ),
        (
            "zero_shot.interpolation",
            [-0.5],
            ["zero_shot.interpolation[0]", "-0.5", "or equal to 0"],
        ),
        (
            "zero_shot.protocols",
            ["base_to_novel"],
            ["base_to_novel", "'full', 'half', 'splits', 'listed' or 'fixed_halves'"],
        ),
        ("runtime.processes", 33, ["runtime.processes", "33", "train.batch_size, 32"]),
        ("runtime.workers", 10**6, ["runtime.workers", "1000000", "less than or equal to 1024"]),
    ],
)
def test_a_wrong_value_is_named(tmp_path, key, value, parts):
    path = changed(tmp_path, key, value)
    with pytest.raises(ConfigError) as error:
        load_params(path)
    for part in [str(path), *parts]:
        assert part in str(error.value)


NAMES = ("x; touch pwned", "$(id)", "`id`", "a'b", 'a"b', "a b", "a\nb", "-rf", "--x", ".a", "")
NO_DATASETS = (*NAMES, "..", "a/b", "/tmp", "\u00e9", "a" * 101, "x.csv", "a\n")
NO_RECIPES = (*NAMES, "..", "../x", "a/../b", "/tmp", "a//b", "a/", "a/.b", "a/-b", "a" * 101)
WITHIN_OUTPUTS = (
    "test",
    "a/train",
    "a/zero_shot_x/b",
    "clip.json",
    "a/m.safetensors",
    "a/" * 100 + "a",
)


@pytest.mark.parametrize("key", ["dataset", "datasets", "demo", "zero_shot"])
def test_a_dataset_cannot_have_a_name_for_a_shell_or_another_folder(values, key):
    where = f"data.{key}" if key == "dataset" else f"data.{key}[1]"
    for name in NO_DATASETS:
        values["data"][key] = name if key == "dataset" else ["demo_shapes", name]
        with pytest.raises(ConfigError) as error:
            build(config.Params, values, "p")
        assert f"{where}: found {name!r}; allowed: 1 to 100 letters" in str(error.value)


def test_a_recipe_cannot_have_a_name_for_a_shell_or_another_folder(values):
    for name in NO_RECIPES:
        with pytest.raises(ConfigError, match=r"p: recipe: found .*; allowed: parts of 1 to 100"):
            build(config.Params, {**values, "recipe": name}, "p")


def test_a_recipe_cannot_lie_within_the_outputs_of_another(values):
    for name in WITHIN_OUTPUTS:
        with pytest.raises(ConfigError, match=r"recipe: found .*no part of which is train, test"):
            build(config.Params, {**values, "recipe": name}, "p")


def test_plain_names_are_allowed(values):
    for recipe in ("a", "text4vis/k400-vitb16-f8", "0/tests/x_1.2-b"):
        assert build(config.Params, {**values, "recipe": recipe}, "p").recipe == recipe
    for name in ("ucf101", "0-my.videos_2", "a..b"):
        values["data"] |= {"dataset": name, "datasets": [name], "demo": [], "zero_shot": []}
        assert build(config.Params, values, "p").data.dataset == name


def test_the_largest_seed_is_one_that_torch_takes():
    torch.manual_seed(config.MAX_SEED)
    with pytest.raises((RuntimeError, ValueError, OverflowError)):
        torch.manual_seed(config.MAX_SEED + 1)


def test_evaluation_alone_has_no_warm_up_and_no_steps(values):
    values["train"] |= {"epochs": 0, "warmup_epochs": 5}
    values["runtime"]["processes"] = 100
    assert build(config.Params, values, "p").train.warmup_epochs == 5


@pytest.mark.parametrize("milestones", [[9, 5], [2, 5], [1]])
def test_milestones_are_ascending_and_after_the_warm_up(values, milestones):
    values["train"] |= {"milestones": milestones}
    build(config.Params, values, "p")  # the schedule is another
    values["train"] |= {"schedule": "multistep"}
    with pytest.raises(ConfigError) as error:
        build(config.Params, values, "p")
    assert f"p: train.milestones: found {[*map(float, milestones)]}" in str(error.value)
    assert "ascending, each after the warm-up of 2 epochs" in str(error.value)
    values["train"] |= {"milestones": [3, 5.5]}
    assert build(config.Params, values, "p").train.milestones == [3, 5.5]


@pytest.mark.parametrize("schedule", ["multistep", "constant"])
def test_only_a_cosine_ends_at_a_share_of_the_peak(values, schedule):
    values["train"] |= {"min_lr_share": 0.01, "schedule": "cosine_from_start"}
    build(config.Params, values, "p")
    values["train"]["schedule"] = schedule
    with pytest.raises(ConfigError, match=r"train.min_lr_share: found 0.01; allowed: 0"):
        build(config.Params, values, "p")


def test_each_process_needs_a_group_of_mixed_clips(values):
    values["augment"] |= {"cutmix_alpha": 1.0}
    values["runtime"]["processes"] = 8
    build(config.Params, values, "p")
    values["runtime"]["processes"] = 9
    expected = r"at most train.batch_size / augment.mix_group, 8: each process needs a group"
    with pytest.raises(ConfigError, match=expected):
        build(config.Params, values, "p")


def test_all_keys_of_earlier_versions_are_named_at_once(values):
    values["train"]["update_every"] = values["train"].pop("steps_per_lr_update")
    values["demo"]["other_videos"] = values["demo"].pop("other_archs")["eval_videos"]
    with pytest.raises(ConfigError) as error:
        config.refuse_old_keys(values, "p")
    assert str(error.value).splitlines() == [
        "p: demo.other_videos is a key of an earlier version; write demo.other_archs.eval_videos",
        "  train.update_every is a key of an earlier version; write train.steps_per_lr_update",
    ]


def test_a_key_of_an_earlier_version_is_none_of_this_one(values):
    """And what it is called now is one."""
    known = flatten(values).keys()
    for old, new in config.OLD_KEYS.items():
        assert old not in known
        assert new in known or new.startswith("nothing: ")


def test_the_comments_offer_what_is_allowed():
    """The words of a choice stand in params.yaml as `a | b`, and no word besides."""
    joined = re.sub(r"\|\n *# ", "| ", (ROOT / "params.yaml").read_text())
    text = re.sub(r" \([^)]*\)", "", joined)
    choices = set()
    for section in typing.get_type_hints(config.Params).values():
        for field in getattr(section, "model_fields", {}).values():
            kind = field.annotation
            while typing.get_origin(kind) is list:
                (kind,) = typing.get_args(kind)
            if typing.get_origin(kind) is typing.Literal:
                choices.add(" | ".join(typing.get_args(kind)))
    assert "full | half | splits | listed | fixed_halves" in choices
    for words in choices:
        assert re.search(rf"(?<![|] ){re.escape(words)}(?! [|])", text), words


def test_all_faults_are_reported_at_once(tmp_path):
    path = changed(tmp_path, "train.lr", "fast")
    for key, value in (("train.epoch", 1), ("data.demo", ["a"]), ("data.zero_shot", ["b"])):
        values = YAML().load(path)
        section, last = key.split(".")
        values[section][last] = value
        YAML().dump(values, path)
    with pytest.raises(ConfigError) as error:
        load_params(path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path}: 4 faults"
    keys = ["data.demo: found 'a'", "data.zero_shot: found 'b'", "train.lr: found 'fast'"]
    assert [line.startswith(f"  {key}") for line, key in zip(lines[1:], keys, strict=False)] == [
        True
    ] * 3
    assert lines[4].startswith("  unknown key train.epoch; allowed: epochs, warmup_epochs")


def test_values_are_replaced_by_dotted_key_and_checked():
    params = load_params(ROOT / "params.yaml")
    other = replace(params, {"train.lr": 2e-3, "text4vis.head": "None", "seed": 3})
    assert (other.train.lr, other.options["head"], other.seed) == (2e-3, "None", 3)
    assert (params.train.lr, params.options["head"]) != (2e-3, "None")
    assert other.train.epochs == params.train.epochs
    with pytest.raises(ConfigError, match=r"unknown key train\.rate(?s:.*)unknown key trian;"):
        replace(params, {"train.rate": 3, "trian.lr": 3})


@pytest.fixture
def values() -> dict[str, Any]:
    """The values of params.yaml."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_a_method_is_a_module_and_a_section(values):
    assert config.method_names() == sorted(METHODS)
    text4vis = build(config.Params, {**values, "raw": {"fusion": "softmax"}}, "p")
    assert "raw.fusion" not in text4vis.settings()
    assert text4vis.settings()["text4vis.loss"] == "ce"
    params = replace(text4vis, {"model.method": "raw"})
    assert params.methods.keys() >= {"raw", "text4vis"}
    assert params.options == {"fusion": "softmax"}
    settings = params.settings()
    assert settings["raw.fusion"] == "softmax"
    assert not any(key.startswith(("text4vis", "runtime")) for key in settings)


def test_a_method_needs_a_section(values):
    del values["raw"]
    values["model"]["method"] = "raw"
    with pytest.raises(ConfigError, match=r"model\.method: found 'raw'.*section.*: text4vis, "):
        build(config.Params, values, "p")
    values["model"]["method"] = "ra"
    with pytest.raises(
        ConfigError, match=r"model\.method: found 'ra'; allowed: .*raw, text4vis.*did you mean raw"
    ):
        build(config.Params, values, "p")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("head", "Transformer", r"text4vis\.head: found 'Transformer'.*did you mean Transf"),
        ("head_layers", 0, r"text4vis\.head_layers: found 0; allowed: .* equal to 1"),
        ("joint", "no", r"text4vis\.joint: found 'no'.*bool"),
        ("heads", 3, r"unknown key text4vis\.heads.*did you mean head"),
        ("text_tower", "trained", r"text4vis\.text_tower: found 'trained'.*infonce"),
    ],
)
def test_a_method_checks_its_options(key, value, message):
    params = replace(load_params(ROOT / "params.yaml"), {f"text4vis.{key}": value})
    with pytest.raises(ConfigError, match=rf"params\.yaml: {message}"):
        read_options(params)


@pytest.mark.parametrize("none", [None, "None"])
def test_null_is_the_word_none(none):
    options = load_params(ROOT / "params.yaml").options
    assert build(Options, {**options, "head": none}, "p").head == "None"


def test_a_missing_key_is_named(tmp_path):
    path = changed(tmp_path, "train.lr", None, delete=True)
    with pytest.raises(ConfigError, match=r"missing key train\.lr \(Peak learning rate of"):
        load_params(path)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: [1, 2\nb: }")
    with pytest.raises(ConfigError, match=r"(?s)params\.yaml is not YAML.*line 2"):
        load_params(path)


def test_a_key_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("? [1]\n: 2")
    with pytest.raises(
        ConfigError, match=r"(?s)params\.yaml: .*\(1,\).*allowed: keys that are text"
    ):
        load_params(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_params(tmp_path / "params.yaml")


def test_dvc_changes_one_line_for_one_value(tmp_path):
    """`dvc exp run -S` keeps comments and form, because params.yaml is in the form DVC writes."""
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = path.read_text().splitlines()
    apply_overrides(path, ["train.epochs=77"])
    after = path.read_text().splitlines()
    differing = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [b.split() for _, b in differing] == [["epochs:", "77"]]


def test_dvc_keeps_every_comment_beside_its_key(tmp_path):
    """DVC writes all lists anew, without the comments that ruamel keeps with their last values."""
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    params = load_params(path)
    lists = [k for k, v in flatten(params.model_dump()).items() if isinstance(v, list)]
    filled = ["text.templates", "zero_shot.protocols"]
    for value in ("[0.5,0.25]", "[]", "[1]"):  # from none to several, to none, to one
        apply_overrides(path, [f"{key}={value}" for key in lists if key not in filled])
        apply_overrides(
            path, ["text.templates=['{}.','a {}']", "zero_shot.protocols=[full,splits]"]
        )
    assert beside(path) == beside(ROOT / "params.yaml")


def beside(path: Path) -> list[tuple[str, str]]:
    """Each comment of a file with the key on its line, or on the next one that has a key."""
    pairs = []
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if "# " in line:
            keys = (rest.strip().partition(":")[0] for rest in lines[i:])
            pairs.append(
                (line.partition("# ")[2], next(key for key in keys if key and key[0] not in "#-"))
            )
    return pairs


@pytest.mark.parametrize(
    ("key", "found", "message"),
    [
        ("attributes.datasets", ["kinetics400"], r"attributes\.datasets: found \['kinetics400'\]"),
        (
            "attributes.datasets",
            "demo_shapes",
            r"attributes\.datasets: .*allowed: a valid list",
        ),
        ("attributes.datasets", [3], r"attributes\.datasets\[0\]: found 3"),
        ("fusion.with", ["../x"], r"fusion\.with\[0\]: found '\.\./x'; allowed: parts of"),
        ("fusion.with", ["a/fused"], r"fusion\.with\[0\]: found 'a/fused'; .*zero_shot_"),
        ("fusion.with", ["a", "b"], r"fusion\.with: found \['a', 'b'\]"),
        (
            "fusion.video_weight",
            1.5,
            r"fusion\.video_weight: found 1\.5; allowed: less than or equal to 1",
        ),
        ("attributes.arch", "ViT-L-14", r"attributes\.weights: found ''"),
        ("attributes.val_json", "a.json", r"val_json: found \('', 'a\.json'\)"),
        ("attributes.template", "a video", r"template: found 'a video'; allowed: exactly one \{\}"),
        ("model.inputs", "attributes", r"attributes\.datasets: found \[\]; .* with demo_shapes"),
        (
            "model.inputs",
            "words",
            r"model\.inputs: found .*allowed: 'frames' or 'attributes'",
        ),
    ],
)
def test_attributes_and_fusion_are_checked(values, key, found, message):
    section, name = key.split(".")
    values[section][name] = found
    with pytest.raises(ConfigError, match=message):
        build(config.Params, values, "p")


def test_a_classifier_without_names_has_one_template(values):
    values["text"] = {"classifier": "random", "templates": ["{}", "a video of {}"]}
    with pytest.raises(ConfigError, match=r"text\.classifier: found 'random'; allowed: text, "):
        build(config.Params, values, "p")
    values["text"]["templates"] = ["a video of {}"]
    assert build(config.Params, values, "p").text.classifier == "random"


def test_a_random_short_side_is_at_least_the_models_input():
    params = load_params(ROOT / "params.yaml")
    changes = {"augment.crop": "random_short_side", "model.input_px": 64}
    replace(params, {**changes, "augment.short_side_px": 64})
    with pytest.raises(
        ConfigError, match=r"augment.short_side_px: found 40; allowed: at least .*64"
    ):
        replace(params, {**changes, "augment.short_side_px": 40})
