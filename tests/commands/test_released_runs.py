"""Files of a user in place of training: --released, --parent; and settings by -S."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from runs import Dvc, add_fused, finish, is_done, select

from clipzoo.__main__ import main
from clipzoo.commands import planned, use, zoo
from clipzoo.config import ConfigError, load_params
from clipzoo.files import file_sha256
from clipzoo.report import kept, verdicts
from clipzoo.report.recipes import recipe_settings
from clipzoo.report.released import describe_given, released_parent

CHILD, PARENT = "text4vis/ucf101-vitl14-f16", "text4vis/k400-vitl14-f16"
BRANCH = "bike/k400-vitb32-f8-attributes"


@pytest.fixture
def file(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file outside of the repository; its content does not matter here."""
    path = tmp_path_factory.mktemp("downloads") / "k400.pt"
    path.write_text("weights")
    return path


def run_main(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["clipzoo", *map(str, words)])
    main()


@pytest.mark.parametrize(
    "name",
    [
        "text4vis/k400-vitb16-f8",
        pytest.param("bike/k400-vitb16-f8", marks=pytest.mark.slow),
        pytest.param("actionclip/k400-vitb16-f8", marks=pytest.mark.slow),
    ],
)
def test_released_weights_run_without_training_under_a_name_of_their_own(name, file, dvc: Dvc):
    options = planned.Options(released=file)
    assert zoo.run_zoo([name], options) == []
    assert dvc.recipes == [f"{name}-released"]
    params = load_params()
    link = Path(params.model.checkpoint)
    digits = file_sha256(file)[:12]
    assert link == Path(f"models/zoo/{name}-released.released-{digits}.pt")
    assert link.read_text() == "weights"
    own = recipe_settings(name) | {
        "recipe": f"{name}-released",
        "train.epochs": 0,
        "model.checkpoint": str(link),
    }
    assert params.settings() == own
    finish(name, options)
    assert is_done(name, released=file)
    assert not is_done(name)  # of the training itself
    assert not Path(f"metrics/{name}/test.json").exists()


def test_released_weights_of_a_parent_are_done_without_a_kept_model(file):
    name = "text4vis/k400-vitl14-f8"
    assert kept.is_parent(name)
    finish(name, planned.Options(released=file))
    assert is_done(name, released=file)
    assert not kept.kept_model(f"{name}-released").exists()


def test_other_content_under_the_same_name_runs_again(file, dvc: Dvc):
    options = planned.Options(released=file)
    finish("demo", options)
    assert zoo.run_zoo(["demo"], options) == []
    assert dvc.recipes == []
    file.write_text("other weights")
    assert zoo.run_zoo(["demo"], options) == []
    assert dvc.recipes == ["demo-released"]


def test_released_weights_of_a_child_need_no_parent(file):
    assert select([CHILD], planned.Options(released=file)) == [f"{CHILD}-released"]
    zero_shot = "text4vis/zero-shot-ucf101-vitl14-f8"
    assert select([zero_shot], planned.Options(released=file)) == [f"{zero_shot}-released"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--released", "gone.pt"], r"--released: found gone\.pt, no such file"),
        (["demo", "--released", "recipes"], "--released: found recipes, a folder"),
        (["demo/*", "--released", "FILE"], r"--released: found \d+ recipes .*allowed: one"),
        (["actionclip/zero-shot-ucf101-vitb16-f8", "--released", "FILE"], "no published number"),
        (["text4vis/ablation-lda-classifier", "--released", "FILE"], "text.classifier lda"),
        (["demo", "--released", "FILE", "-S", "train.epochs=3"], "train.epochs: --released sets"),
        ([BRANCH, "--released", "FILE"], "--parent bike/k400-vitb32-f8=FILE, e.g. predictions/zoo"),
        (["demo", "--parent", "FILE"], "--parent: demo: starts from no other recipe"),
        ([CHILD, "--parent", "gone.pt"], r"--parent text4vis/k400-vitl14-f16: found gone\.pt"),
        ([CHILD, "--parent", "text4vis/k400-vitl14-f8=FILE"], f"did you mean {PARENT}"),
        (["text4vis/ucf101-*", "--parent", "FILE"], "allowed: RECIPE=FILE, where RECIPE is text4"),
        ([BRANCH, "--parent", "FILE"], "fuse VIDEO ATTRIBUTES --labels FILE --released RECIPE"),
        (["demo", "-S", "train.epoch=3"], "-S train.epoch: unknown key.*did you mean train.epochs"),
        (["demo", "-S", "train.clip_ratio=1"], "-S: train.clip_ratio .*write train.tower_lr_ratio"),
        (["demo", "-S", "train.epochs"], "-S train.epochs: allowed: KEY=VALUE"),
        (["demo", "-S", "train.epochs=x"], "train.epochs: found 'x'; allowed: a valid integer"),
        (["demo", "-S", "text4vis.head=Trans"], "text4vis.head: found 'Trans'"),
        (["demo", "-S", "runtime.workers=3"], "-S runtime.workers: .*in params.yaml"),
        (["demo", "-S", "recipe=x"], "-S recipe: a recipe's name is its path"),
        (["demo", "-S", "data.demo=[a, *b]"], "-S data.demo is not YAML: found an alias"),
        (["demo", "-S", "train.epochs=1"], "train.warmup_epochs: found 2.*set both in one command"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(
    words, message, file, dvc: Dvc, monkeypatch, capsys
):
    before = Path("params.yaml").read_bytes()
    words = [word.replace("FILE", str(file)) for word in words]
    with pytest.raises(SystemExit, match="1"):
        run_main(monkeypatch, "zoo", *words)
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message.replace("FILE", f"({file}|FILE)"), error), error
    assert dvc.recipes == []
    assert Path("params.yaml").read_bytes() == before
    assert not Path("models").exists()


def test_a_file_replaces_the_parent_and_the_settings_say_so(file, dvc: Dvc):
    options = planned.Options(parents={PARENT: file})
    assert zoo.run_zoo([CHILD, "demo"], options) == []
    assert dvc.recipes == [CHILD, "demo"]
    settings = planned.plan(CHILD, options).params.settings()
    assert Path(settings["model.checkpoint"]).read_text() == "weights"
    expected = recipe_settings(CHILD)
    digits = file_sha256(file)[:12]
    assert released_parent(settings, expected) == digits
    assert released_parent(expected, expected) == ""
    assert verdicts.modified(settings, expected, "test") == []
    assert verdicts.modified(expected, settings, "test") == ["model.checkpoint"]
    assert f"released model (sha256 {digits}...)" in describe_given(settings, expected, {})
    other = settings | {"model.checkpoint": "models/zoo/text4vis/k400-vitl14-f8.pt"}
    assert verdicts.modified(other, expected, "test") == ["model.checkpoint"]
    # Done with this file: without the option it is done too, and no parent is trained for it.
    finish(CHILD, options)
    assert is_done(CHILD)
    assert select([CHILD]) == [CHILD]
    assert zoo.select([CHILD], again=True)[0].name == PARENT
    # Done with the parent of this repository: the file is another one.
    finish(CHILD)
    assert not is_done(CHILD, parents={PARENT: file})


def test_predictions_of_a_user_are_taken_and_said(here, dvc: Dvc, tmp_path):
    add_fused("branch", "demo/head-none")
    given = tmp_path / "theirs/video.safetensors"
    given.parent.mkdir()
    given.write_text("scores")
    options = planned.Options(parents={"demo/head-none": given})
    with pytest.raises(ConfigError, match=r"found .*video\.parquet, no such file"):
        zoo.select(["branch"], options)
    given.with_suffix(".parquet").write_text("ids")
    assert zoo.run_zoo(["branch"], options) == []
    assert dvc.recipes == ["branch"]
    tensors, table, about = kept.kept_predictions("demo/head-none")
    assert (tensors.read_text(), table.read_text()) == ("scores", "ids")
    values = json.loads(about.read_text())
    assert values["environment"] == "not recorded"
    assert values["source"] == f"{given}, sha256 {file_sha256(given)}"
    assert describe_given({}, {}, {"video_source": "x.pt"}) == "; video branch from x.pt"
    assert not kept.take_predictions("demo/head-none", given)
    given.write_text("other scores")
    assert kept.take_predictions("demo/head-none", given)


def test_predictions_of_released_weights_are_kept_apart(file, dvc: Dvc):
    """The video branch's, for a fusion with released attributes."""
    assert zoo.run_zoo(["bike/k400-vitb32-f8"], planned.Options(released=file)) == []
    files = kept.kept_predictions("bike/k400-vitb32-f8-released")
    assert all(path.is_file() for path in files)
    video = "bike/k400-vitb32-f8"
    assert kept.fault_of_predictions(video, recipe_settings(video)).endswith(kept.MISSING)
    parents = {"bike/k400-vitb32-f8": files[0]}
    options = planned.Options(released=file, parents=parents)
    assert select([BRANCH], options) == [f"{BRANCH}-released"]


def test_settings_by_option_are_part_of_the_run(here, dvc: Dvc, monkeypatch, capsys):
    words = ["zoo", PARENT, "-S", "train.epochs=8", "-S", "train.lr=1e-4"]
    words += ["-S", "data.datasets=[kinetics400]", "-S", "model.checkpoint="]
    run_main(monkeypatch, *words)
    params = load_params()
    assert params.recipe == PARENT
    assert (params.train.epochs, params.train.lr) == (8, 1e-4)
    assert not kept.kept_model(PARENT).exists()  # of another training than the recipe's
    assert dvc.commands[-1][-1] == "--no-note"  # on settings that were just given
    assert "not kept for other recipes: train.epochs, train.lr differ" in capsys.readouterr().out
    finish(PARENT)
    assert not is_done(PARENT, settings={"train.epochs": 8})
    finish(PARENT, planned.Options(settings={"train.epochs": 8}))
    assert is_done(PARENT, settings={"train.epochs": 8})
    assert not is_done(PARENT)


def test_use_and_check_take_the_same_options(file, monkeypatch, capsys):
    words = [CHILD, "--released", file, "-S", "test.clips=4"]
    run_main(monkeypatch, "use", *words)
    params = load_params()
    assert params.recipe == f"{CHILD}-released"
    assert params.test.clips == 4
    assert Path(params.model.checkpoint).read_text() == "weights"
    assert f"next: clipzoo check {CHILD} --released {file} -S test.clips=4" in (
        capsys.readouterr().out
    )
    Path(params.model.checkpoint).unlink()
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "check", *words)
    out = capsys.readouterr().out
    assert f"ok      checkpoint: {file}" in out
    assert "evaluation only" in out
    assert not Path(params.model.checkpoint).exists()
    with pytest.raises(ConfigError, match="which queued experiments cannot see"):
        use.queue(CHILD, planned.Options(released=file))


def test_released_scores_get_a_row(here, monkeypatch, capsys):
    torch.manual_seed(0)
    for name in ("video", "sentence"):
        torch.save(torch.rand(20, 4).softmax(1), f"{name}.pt")
    torch.save(torch.arange(20) % 4, "labels.pt")
    started = []
    done = type("Done", (), {"returncode": 0})
    monkeypatch.setattr(
        "clipzoo.runtime.ending.subprocess.run",
        lambda command, **_: started.append(command) or done,
    )
    words = ["fuse", "video.pt", "sentence.pt", "--labels", "labels.pt", "--released"]
    with pytest.raises(SystemExit):
        run_main(monkeypatch, *words, "bike/k400-vitb32-f8")
    assert f"is fused with no other; allowed: {BRANCH}" in capsys.readouterr().err
    run_main(monkeypatch, *words, BRANCH)
    assert [command[1:] for command in started] == [
        ["-m", "dvc", "repro", "--single-item", "report"]
    ]
    found = json.loads(Path(f"metrics/{BRANCH}-released/fused.json").read_text())
    assert (found["num_videos"], found["videos_sha256"], found["fused_weight"]) == (20, "", 0.7)
    assert found["video_source"] == f"video.pt, sha256 {file_sha256('video.pt')}"
    used = verdicts.read_settings(Path(), f"{BRANCH}-released", "fused")
    assert used == recipe_settings(BRANCH) | {"recipe": f"{BRANCH}-released", "train.epochs": 0}
    assert "fused, 0.7 of the first  top-1" in capsys.readouterr().out


def test_a_weight_of_ones_own_is_a_modification(here):
    from clipzoo.commands.fuse import released_params

    params = yaml.safe_load(Path(f"recipes/{BRANCH}.yaml").read_text())["params"]
    assert "video_weight" not in params["fusion"]
    changed = released_params(BRANCH, 0.5).settings()
    assert verdicts.modified(changed, recipe_settings(BRANCH), "fused") == [
        "fusion.video_weight",
        "train.epochs",
    ]
