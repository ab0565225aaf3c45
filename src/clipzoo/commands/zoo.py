"""`clipzoo zoo PATTERN...`: run recipes one after the other."""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

from clipzoo.runtime.ending import run_command
from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.planned import (
    UNCHANGED,
    Options,
    Run,
    add_options,
    place_files,
    plan,
    read_arguments,
)
from clipzoo.commands.smoke import smoke
from clipzoo.commands.use import LOCK, PARAMS_FILE, describe_changes, write_params
from clipzoo.config import ConfigError
from clipzoo.files import near
from clipzoo.paths import METRICS_DIR
from clipzoo.report import kept, verdicts
from clipzoo.report.recipes import fused_recipes, recipe_names, recipe_settings
from clipzoo.runtime.lock import only_one, require_idle


def matching(patterns: Sequence[str]) -> list[str]:
    """Recipes that match shell patterns, in the order of the patterns.

    Raises:
        ConfigError: a pattern that matches nothing.
    """
    known = recipe_names()
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = fnmatch.filter(known, pattern)
        if not matches:
            raise ConfigError(
                f"no recipe matches {pattern!r}{near(pattern, known)}; `clipzoo recipes` lists all"
            )
        chosen |= dict.fromkeys(matches)
    return list(chosen)


def select(
    patterns: Sequence[str], options: Options = UNCHANGED, *, again: bool = False
) -> list[Run]:
    """The runs of recipes that match shell patterns, parents before children.

    The parents of a recipe are the one whose model it starts from, and those that it is fused with.
    One is included if the recipe still has to be run and what the parent kept, its model or its
    predictions, is missing or was made with other settings than it has now. The options of the
    command line hold for recipes that match, not for such parents.

    Raises:
        ConfigError: a pattern that matches nothing; or as `plan`.
    """
    chosen = matching(patterns)
    runs: dict[str, Run] = {}
    for name in chosen:
        run = plan(name, options)
        needed = again or not is_done(run)
        for parent, fault in _parents(run).items():
            if parent in chosen or (needed and fault):
                of_parent = options if parent in chosen else UNCHANGED
                runs.setdefault(parent, plan(parent, of_parent))
        runs.setdefault(name, run)
    return list(runs.values())


def _parents(run: Run) -> dict[str, str]:
    """Recipes that must have run before, and why what one has kept cannot be used; '' = it can."""
    parent, given = run.recipe.parent, run.options.parents
    faults = {
        name: kept.fault_of_predictions(name, recipe_settings(name))
        for name in run.params.fusion.with_
        if name not in given
    }
    if parent and run.params.model.checkpoint == str(kept.kept_model(parent)):
        model = kept.fault_of_model(parent, recipe_settings(parent))
        faults[parent] = faults.get(parent) or model
    return faults


def is_done(run: Run) -> bool:
    """Whether a run has all its results, with these settings and from these files, and what others
    need of it."""
    settings, name = run.params.settings(), run.params.recipe
    stems = ["test", *(f"zero_shot_{dataset}" for dataset in settings["data.zero_shot"])]
    stems += ["fused"] if fused_recipes(settings) else []
    for stem in stems:
        used = verdicts.read_settings(Path(), name, stem)
        if used is None or verdicts.modified(used, settings, stem):
            return False
    if not _is_of_its_parents(run):
        return False
    if run.changed:
        return True
    if kept.is_parent(run.name) and not run.options.released and not kept.keeps_model_of(name):
        return False
    return not kept.is_fused(run.name) or kept.keeps_predictions_of(name)


def _is_of_its_parents(run: Run) -> bool:
    """Whether the results of a run are of the files that it would start from now.

    What is missing is not compared: a parent's model may be removed once its children are done.
    """
    root = METRICS_DIR / run.params.recipe
    checkpoint = Path(run.params.model.checkpoint)
    if run.params.model.checkpoint and checkpoint.is_file():
        metrics = kept.read_mapping(root / "test.json")
        if metrics.get("checkpoint_sha256") != kept.digest_of(checkpoint):
            return False
    for name in run.params.fusion.with_:
        model = kept.read_mapping(kept.kept_predictions(name)[-1]).get("model_sha256")
        fused = kept.read_mapping(root / "fused.json")
        if model and fused.get("video_model_sha256") != model:
            return False
    return all(not fault or fault.endswith(kept.MISSING) for fault in _parents(run).values())


def run_zoo(
    patterns: Sequence[str],
    options: Options = UNCHANGED,
    *,
    stop: bool = False,
    again: bool = False,
    locks: Sequence[int] = (),
) -> list[str]:
    """Use and reproduce recipes one after the other; returns the names of those that failed.

    Each recipe's metrics are in a folder of its name. A recipe that `is_done` is skipped, so a
    killed or failed run continues where it stopped; later changes of code or data go unnoticed.

    Args:
        patterns: shell patterns of recipe names.
        options: the command line's, which hold for the recipes that match.
        stop: stop at the first failure. Otherwise only the children of a failed recipe are
            skipped, and counted as failed.
        again: also run recipes that are finished.
        locks: file descriptors that DVC inherits, so that it holds these locks too.

    Raises:
        ConfigError: a pattern matches nothing, or a recipe is invalid; none is run.
    """
    runs = select(patterns, options, again=again)
    print(f"zoo: {len(runs)} recipes: {', '.join(run.params.recipe for run in runs)}", flush=True)
    failed: list[str] = []
    for number, run in enumerate(runs, 1):
        print(f"\n[{number}/{len(runs)}] {run.params.recipe}", flush=True)
        lost = [parent for parent in _parents(run) if parent in failed]
        if lost:
            print(f"skipped: its parent {lost[0]} failed", flush=True)
            failed.append(run.name)
            continue
        other_predictions = place_files(run)
        if not again and not other_predictions and is_done(run):
            print("skipped: already done with these settings (--again runs it again)", flush=True)
            continue
        require_idle(LOCK, "and zoo would change its params.yaml")
        print(describe_changes(write_params(run.params)), end="", flush=True)
        command = [sys.executable, "-m", "clipzoo", "repro"]
        command += ["--no-note"] if run.changed else []  # -S has just been printed
        if run_command(command, pass_fds=locks) == 0:
            _keep(run)
            continue
        failed.append(run.name)
        if stop:
            break
    return failed


def _keep(run: Run) -> None:
    """Keep what others need of a finished run, if it has the settings of its recipe."""
    if not run.changed:
        kept.keep_outputs(run.name, released=run.options.released is not None)
    elif kept.is_parent(run.name) or kept.is_fused(run.name):
        print(f"not kept for other recipes: {', '.join(run.changed)} differ from {run.name}")


def _run(arguments: argparse.Namespace) -> None:
    names = matching(arguments.recipes)
    options = read_arguments(arguments, names)
    if arguments.smoke:
        with only_one("zoo --smoke"):
            for name in names:
                smoke(name, options, keep=arguments.keep)
        return
    with only_one(LOCK) as lock:
        require_idle(LOCK, "and zoo would change its params.yaml")
        failed = run_zoo(
            arguments.recipes, options, stop=arguments.stop, again=arguments.again, locks=[lock]
        )
    if failed:
        raise ConfigError(
            f"{'recipe' if len(failed) == 1 else f'{len(failed)} recipes'} failed: "
            f"{', '.join(failed)}; fix the errors and run the same "
            "command again: finished recipes are skipped"
        )
    print(f"\nzoo: all done; {PARAMS_FILE} holds the last recipe; results are in RESULTS.md")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "zoo",
        "run recipes one after the other",
        (
            "zoo 'demo/*'",
            "zoo text4vis/k400-vitb16-f8 text4vis/k400-vitb32-f8 --stop",
            "zoo text4vis/k400-vitb16-f8 --released k400-vitb16-f8.pt",
            "zoo text4vis/k400-vitb16-f8 --smoke",
            "zoo text4vis/ucf101-vitl14-f16 --parent k400-vitl14-f16.pt",
            "zoo text4vis/k400-vitb16-f8 -S train.epochs=10 -S train.batch_size=128",
        ),
    )
    command.add_argument("recipes", nargs="+", help="names or patterns, e.g. 'text4vis/k400-*'")
    add_options(command)
    command.add_argument("--stop", action="store_true", help="stop at the first failure")
    command.add_argument("--again", action="store_true", help="also run recipes that are finished")
    command.add_argument(
        "--smoke",
        action="store_true",
        help="only try the stages, on a few videos and with two steps; no result is written",
    )
    command.add_argument(
        "--keep", action="store_true", help="with --smoke: leave its folder in .state/smoke/"
    )
    command.set_defaults(run=_run)
