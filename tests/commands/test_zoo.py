"""Using recipes, running sets of them, queueing."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from runs import add_fused, finish, is_done, select

from clipzoo.__main__ import main
from clipzoo.commands import planned, use, zoo
from clipzoo.config import ConfigError, load_params
from clipzoo.methods import read_model_metadata
from clipzoo.report import kept
from clipzoo.report.recipes import recipe_names, recipe_settings
from clipzoo.runtime.lock import only_one

ROOT = Path(__file__).parents[2]
LISTS = {
    "data.datasets": ("[kinetics400,demo_unseen,demo_shapes]", "[demo_shapes,demo_unseen]"),
    "data.demo": ("[]", "[demo_shapes,demo_unseen]"),
    "data.zero_shot": ("[]", "[demo_unseen]"),
    "text.templates": ("['a video of a person {}.','{}']", "['{}']"),
    "train.milestones": ("[1,2]", "[]"),
    "zero_shot.protocols": ("[full]", "[full,half]"),
    "zero_shot.interpolation": ("[0.5]", "[]"),
    "attributes.datasets": ("[demo_shapes]", "[]"),
    "fusion.with": ("[demo/raw]", "[]"),
}


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("name", ["text4vis/k400-vitl14-336-f32", "demo/few-shot-4-random"])
def test_use_keeps_comments_and_form_and_can_be_undone(here, name):
    path = here / "params.yaml"
    before = path.read_text()
    changes = use.use(name)
    after = path.read_text()
    assert load_params(path).recipe == name
    assert comments(after) == comments(before)
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(changed) <= len(changes)
    assert ("recipe", "demo", name) in changes
    assert use.use(name) == []
    assert path.read_text() == after
    undone = use.use("demo")
    assert {(key, new, old) for key, old, new in map(tuple, map(repr_lists, undone))} == {
        tuple(repr_lists(change)) for change in changes
    }
    assert path.read_text() == before


def repr_lists(change: tuple) -> list:
    return [str(part) for part in change]


def test_nothing_leaks_from_the_recipe_before_and_runtime_stays(here):
    path = here / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("micro_batch: 0", "micro_batch: 3"))
    assert path.read_text() != text
    use.use("demo/interpolation")
    use.use("text4vis/k400-vitb32-f8")
    direct = path.read_text()
    use.use("demo")
    use.use("text4vis/k400-vitb32-f8")
    assert path.read_text() == direct
    params = load_params(path)
    assert params.zero_shot.interpolation == []
    assert params.runtime.micro_batch == 3


def add_recipe(params: dict) -> str:
    Path("recipes/own.yaml").write_text(yaml.safe_dump({"about": "a test", "params": params}))
    return "own"


def test_the_method_checks_its_options_before_anything_is_done(here, dvc, monkeypatch, capsys):
    name, before = add_recipe({"text4vis": {"head": "Trans"}}), Path("params.yaml").read_bytes()
    message = r"recipes/own\.yaml: params: text4vis\.head: found 'Trans'.*did you mean Transf"
    with pytest.raises(ConfigError, match=message):
        use.use(name)
    with pytest.raises(ConfigError, match=message):
        zoo.run_zoo(["demo/head-none", name])
    assert dvc.recipes == []
    assert Path("params.yaml").read_bytes() == before
    monkeypatch.setattr("sys.argv", ["clipzoo", "check", name])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "text4vis.head: found 'Trans'" in capsys.readouterr().err


def test_a_method_whose_section_is_not_in_the_file_gets_one(here):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"raw:\n(  .*\n)+", "", text))
    before = load_params("params.yaml")
    assert "raw" not in before.methods
    options = {"fusion": "softmax", "test_sampler": "first"}
    changes = use.use(add_recipe({"model": {"method": "raw"}, "raw": options}))
    assert ("raw.fusion", None, "softmax") in changes
    params = load_params("params.yaml")
    assert params.options == options
    assert params.methods["text4vis"] == before.options


@pytest.mark.slow
def test_every_recipe_can_be_used(here):
    for name in recipe_names():
        use.use(name)
        params = load_params("params.yaml")
        expected = recipe_settings(name)
        assert (params.model.arch, params.train.lr) == (
            expected["model.arch"],
            expected["train.lr"],
        )


def test_changes_are_printed_one_a_line(here, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["clipzoo", "use", "demo/head-none"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["recipe: 'demo' -> 'demo/head-none'", "text4vis.head: 'Transf' -> 'None'"]
    assert lines[2] == "use: demo/head-none, 2 values of params.yaml changed"


def test_a_wrong_recipe_changes_nothing(here, capsys, monkeypatch):
    before = (here / "params.yaml").read_bytes()
    bad = here / "recipes/demo/bad.yaml"
    bad.write_text("about: x\nparams: {train: {epoch: 3}}\n")
    monkeypatch.setattr("sys.argv", ["clipzoo", "use", "demo/bad"])
    with pytest.raises(SystemExit):
        main()
    assert "unknown key train.epoch" in capsys.readouterr().err
    assert (here / "params.yaml").read_bytes() == before


def test_a_form_that_the_editor_breaks_is_refused(here):
    """ruamel.yaml writes nonsense where a comment stands on the line of a list's key."""
    path = here / "params.yaml"
    path.write_text(path.read_text().replace("  zero_shot:\n", "  zero_shot: # a comment\n"))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="remove comments from the lines of lists"):
        use.use("text4vis/k400-vitb32-f8")
    assert path.read_bytes() == before
    assert not list(here.glob("*.part"))


@pytest.mark.parametrize("keys", [*((key,) for key in LISTS), *itertools.combinations(LISTS, 2)])
def test_dvc_changes_lists_and_back_without_harm(here, keys):
    """`dvc exp run -S data.zero_shot=[]` and its like."""
    path = here / "params.yaml"
    before = path.read_text()
    apply_overrides(path, [f"{key}={LISTS[key][0]}" for key in keys])
    yaml.safe_load(path.read_text())
    assert comments(path.read_text()) == comments(before)
    apply_overrides(path, [f"{key}={LISTS[key][1]}" for key in keys])
    assert path.read_text() == before


def test_select_puts_parents_first_and_adds_missing_ones(here):
    child, parent = "text4vis/ucf101-vitl14-f16", "text4vis/k400-vitl14-f16"
    assert select([child]) == [parent, child]
    assert select([child, "text4vis/k400-vitl14-f1*", "demo"]) == [parent, child, "demo"]
    finish(parent)
    kept.keep_outputs(parent)
    assert select([child]) == [child]
    k400 = select(["text4vis/k400-*"])
    assert len(k400) == len([n for n in recipe_names() if n.startswith("text4vis/k400-")])
    with pytest.raises(ConfigError, match="no recipe matches 'text5vis"):
        select(["text5vis/*"])


def test_zoo_uses_reproduces_and_keeps_the_models_of_parents(here, dvc):
    child, parent = "text4vis/ucf101-vitl14-f16", "text4vis/k400-vitl14-f16"
    assert zoo.run_zoo([child, "demo"]) == []
    assert dvc.recipes == [parent, child, "demo"]
    assert dvc.commands == [["-m", "clipzoo", "repro"]] * 3
    assert read_model_metadata(kept.kept_model(parent)).recipe == parent
    assert not kept.kept_model(child).exists()
    assert load_params("params.yaml").recipe == "demo"


@pytest.mark.slow
def test_a_recipe_that_is_fused_needs_the_predictions_of_the_other(here, dvc, capsys):
    add_fused("branch", "demo/head-none")
    assert select(["branch"]) == ["demo/head-none", "branch"]
    assert zoo.run_zoo(["branch"]) == []
    assert dvc.recipes == ["demo/head-none", "branch"]
    files = kept.kept_predictions("demo/head-none")
    assert [path.read_text() for path in files] == [
        "test.safetensors of demo/head-none",
        "test.parquet of demo/head-none",
        Path("metrics/demo/head-none/test.json").read_text(),
    ]
    assert "kept for other recipes: predictions/zoo/demo/head-none" in capsys.readouterr().out
    assert not any(path.exists() for path in kept.kept_predictions("branch"))
    assert is_done("demo/head-none")
    assert is_done("branch")
    Path("metrics/branch/fused.json").unlink()
    assert not is_done("branch")
    assert select(["branch"]) == ["branch"]
    files[1].unlink()
    assert not is_done("demo/head-none")
    assert select(["branch"]) == ["demo/head-none", "branch"]
    with pytest.raises(ConfigError, match="needs predictions/zoo/demo/head-none, which queued"):
        use.queue("branch")
    dvc.failing = "demo/head-none"
    assert zoo.run_zoo(["branch"], again=True) == ["demo/head-none", "branch"]
    assert "skipped: its parent demo/head-none failed" in capsys.readouterr().out


def test_a_fusion_with_no_other_recipe_is_refused(here):
    add_fused("branch", "demo/head-non")
    with pytest.raises(ConfigError, match=r"fusion\.with: found 'demo/head-non'; allowed"):
        use.use("branch")


def test_recipes_that_need_each_other_are_refused_with_the_cycle(here):
    add_fused("branch", "branch")
    with pytest.raises(ConfigError, match="it needs itself: branch -> branch;"):
        use.use("branch")
    add_fused("branch", "own")
    Path("recipes/own.yaml").write_text("about: x\nparent: other\n")
    Path("recipes/other.yaml").write_text("about: x\nparent: branch\n")
    for name in ("branch", "own", "other"):
        with pytest.raises(ConfigError, match=f"needs itself: {name} -> .* -> .* -> {name};"):
            zoo.select([name])


def test_use_ends_the_stages_of_the_method_before(here):
    add_fused("branch", "demo/head-none")
    use.use("branch")
    params = load_params("params.yaml")
    assert params.fusion.with_ == ["demo/head-none"]
    assert params.attributes.datasets == ["demo_shapes"]
    for name in ("demo/raw", "text4vis/k400-vitb32-f8"):
        use.use("branch")
        use.use(name)
        params = load_params("params.yaml")
        assert params.fusion.with_ == params.attributes.datasets == []


def test_a_failure_is_reported_at_the_end_and_stops_only_its_children(here, dvc, capsys):
    parent = dvc.failing = "text4vis/k400-vitl14-f16"
    children = ["text4vis/hmdb51-vitl14-f16", "text4vis/ucf101-vitl14-f16"]
    assert zoo.run_zoo([*children, "demo"]) == [parent, *children]
    assert dvc.recipes == [parent, "demo"]
    assert f"skipped: its parent {parent} failed" in capsys.readouterr().out
    dvc.recipes.clear()
    assert zoo.run_zoo([*children, "demo"], stop=True) == [parent]
    assert dvc.recipes == [parent]


def test_a_second_call_continues_where_the_first_stopped(here, dvc, capsys):
    finish("demo/head-none")
    finish("demo/interpolation", **{"zero_shot.interpolation": [0.5]})
    finish("demo/infonce-frozen")
    Path("metrics/demo/infonce-frozen/zero_shot_demo_unseen.json").unlink()
    finish("text4vis/k400-vitl14-f16")  # a parent, whose model is not kept
    names = ["demo/head-none", "demo/interpolation", "demo/infonce-frozen"]
    names += ["text4vis/k400-vitl14-f16"]
    assert zoo.run_zoo(names) == []
    assert dvc.recipes == names[1:]
    assert "skipped: already done" in capsys.readouterr().out
    zoo.run_zoo(["text4vis/k400-vitl14-f16"])
    assert dvc.recipes == names[1:]
    zoo.run_zoo(["demo/head-none"], again=True)
    assert dvc.recipes[-1] == "demo/head-none"


def test_an_edited_parent_is_run_again_for_its_child(here, dvc):
    child, parent = "text4vis/ucf101-vitl14-f16", "text4vis/k400-vitl14-f16"
    assert zoo.run_zoo([child]) == []
    assert select([child]) == [child]
    assert is_done(child)
    path = here / f"recipes/{parent}.yaml"
    text = path.read_text()
    assert "\nparams:\n" in text
    path.write_text(text.replace("\nparams:\n", "\nparams:\n  seed: 7\n"))
    assert select([child]) == [parent, child]
    assert not is_done(child)
    dvc.recipes.clear()
    assert zoo.run_zoo([child]) == []
    assert dvc.recipes == [parent, child]
    assert is_done(child)


def test_a_fused_parent_that_was_edited_is_run_again(here, dvc):
    add_fused("branch", "own")
    Path("recipes/own.yaml").write_text("about: x\n")
    assert zoo.run_zoo(["branch"]) == []
    assert dvc.recipes == ["own", "branch"]
    assert is_done("branch")
    Path("recipes/own.yaml").write_text("about: x\nparams: {seed: 7}\n")
    assert select(["branch"]) == ["own", "branch"]
    assert not is_done("branch")
    assert zoo.run_zoo(["branch"]) == []
    assert dvc.recipes == ["own", "branch"] * 2


@pytest.mark.parametrize("parent", ["text4vis/k400-vitl14-f16", "demo/head-none"])
def test_what_a_killed_zoo_has_not_kept_is_made_again(here, dvc, parent):
    """Killed after a parent's `dvc repro`: what an earlier run kept does not count."""
    add_fused("branch", "demo/head-none")
    assert zoo.run_zoo([parent]) == []
    assert is_done(parent)
    path = Path(f"metrics/{parent}/test.json")
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model_sha256": "of another training"}))
    assert not is_done(parent)
    assert zoo.run_zoo([parent]) == []
    assert dvc.recipes == [parent] * 2
    assert is_done(parent)


def test_predictions_kept_of_another_recipe_are_not_taken(here, dvc):
    add_fused("branch", "demo/head-none")
    assert zoo.run_zoo(["demo/head-none"]) == []
    assert select(["branch"]) == ["branch"]
    about = kept.kept_predictions("demo/head-none")[-1].with_name(kept.SETTINGS_FILE)
    settings = json.loads(about.read_text())
    about.write_text(json.dumps(settings | {"recipe": "demo/raw"}))
    assert select(["branch"]) == ["demo/head-none", "branch"]


def test_a_folder_that_is_kept_is_the_old_or_the_new_one(here, dvc, monkeypatch):
    add_fused("branch", "demo/head-none")
    finish("demo/head-none")
    kept.keep_outputs("demo/head-none")
    files = kept.kept_predictions("demo/head-none")
    before = [path.read_bytes() for path in files]
    (kept.PREDICTIONS_DIR / "test.safetensors").write_text("new")
    copied = []

    def copy(source, target) -> None:
        copied.append(target)
        if len(copied) == 2:
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(kept.shutil, "copyfile", copy)
    with pytest.raises(KeyboardInterrupt):
        kept.keep_outputs("demo/head-none")
    assert [path.read_bytes() for path in files] == before
    assert [path.name for path in files[0].parents[1].iterdir()] == ["head-none"]


def test_new_content_behind_a_checkpoint_is_not_done(here, dvc):
    path = here / "own.pt"
    path.write_text("one")
    options = planned.Options(settings={"model.checkpoint": str(path)})
    finish("demo/raw", options)
    assert is_done("demo/raw", settings=options.settings)
    path.write_text("two")
    assert not is_done("demo/raw", settings=options.settings)


@pytest.mark.parametrize("words", [["use", "demo"], ["zoo", "demo"], ["use", "demo", "--queue"]])
def test_params_do_not_change_beside_a_stage(here, dvc, monkeypatch, capsys, words):
    before = (here / "params.yaml").read_bytes()
    monkeypatch.setattr("sys.argv", ["clipzoo", *words])
    with only_one("train"), pytest.raises(SystemExit, match="1"):
        main()
    assert "train runs here" in capsys.readouterr().err
    assert dvc.commands == []
    assert (here / "params.yaml").read_bytes() == before


def test_zoo_exits_with_1_after_a_failure(here, dvc, capsys, monkeypatch):
    dvc.failing = "demo/head-none"
    monkeypatch.setattr("sys.argv", ["clipzoo", "zoo", "demo/head-none", "demo"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "error: recipe failed: demo/head-none" in capsys.readouterr().err
    assert dvc.recipes == ["demo/head-none", "demo"]


def test_queue_leaves_params_as_they_were(here, dvc):
    before = (here / "params.yaml").read_bytes()
    use.queue("demo/head-none")
    assert dvc.recipes == ["demo/head-none"]
    assert dvc.commands[0][1:] == ["dvc", "exp", "run", "--queue", "--name", "demo-head-none"]
    assert (here / "params.yaml").read_bytes() == before
    dvc.failing = "demo/head-none"
    with pytest.raises(ConfigError, match="exp run --queue --name demo-head-none` failed"):
        use.queue("demo/head-none")
    assert (here / "params.yaml").read_bytes() == before


def test_a_recipe_that_needs_a_kept_model_is_not_queued(here, dvc):
    with pytest.raises(ConfigError, match="queued experiments cannot see"):
        use.queue("text4vis/ucf101-vitl14-f16")
    assert dvc.recipes == []


@pytest.mark.parametrize("command", ["use", "check", "zoo"])
def test_a_recipe_with_a_name_for_a_shell_is_refused(here, dvc, monkeypatch, capsys, command):
    name = "demo/x; touch pwned"
    (here / f"recipes/{name}.yaml").write_text("about: x\n")
    before = (here / "params.yaml").read_text()
    monkeypatch.setattr("sys.argv", ["clipzoo", command, name])
    with pytest.raises(SystemExit):
        main()
    assert f"recipe: found {name!r}; allowed: parts of 1 to 100 letters" in capsys.readouterr().err
    assert dvc.commands == []
    assert (here / "params.yaml").read_text() == before
