"""check_names: refuse a run with wrong parameters, and record the files that parameters name.

The recipe and the datasets of params.yaml name folders, which DVC empties before it runs a stage.
So this stage comes before all others, on one machine, and takes seconds. It checks all of
params.yaml: a run with a wrong value fails here, with all that is wrong, not after hours in a later
stage.

    dvc repro check_names

It prints the recipe and the datasets. The digests that it writes run a stage again whenever a file
that a parameter names has new content (`clipzoo.given_files`).
"""

from pathlib import Path

from clipzoo.runtime.launch import run_stage
from clipzoo.config import ConfigError, Params, build, load_params
from clipzoo.files import replacing
from clipzoo.given_files import record_given_files
from clipzoo.report.kept import fault_of_predictions
from clipzoo.report.recipes import recipe_names, recipe_settings
from clipzoo.yaml_files import read_yaml

# The text is always the same, so that another name alone reruns no stage that depends on the file.
TEXT = "The recipe and the datasets of params.yaml have plain names.\n"


def main() -> None:
    params = read_checked()  # refuses other names
    data = params.data
    check_predictions(params)
    datasets = sorted({data.dataset, *data.datasets, *data.demo, *data.zero_shot})
    print(f"check_names: recipe {params.recipe}, datasets {', '.join(datasets)}")
    with replacing("data/checked_names.txt") as part:
        Path(part).write_text(TEXT, encoding="utf-8")
    record_given_files(params)


def read_checked() -> Params:
    """params.yaml; ConfigError names all that is wrong in it, options of the method included."""
    params, faults = None, []
    try:
        params = load_params()
    except ConfigError as error:
        faults.append(str(error))
    faults += faults_of_model(read_yaml("params.yaml"))
    if faults or params is None:
        raise ConfigError("\n".join(faults))
    return params


def faults_of_model(values: object) -> list[str]:
    """What is wrong in values that `load_params` does not know: the architecture and the options
    of the method, which the method checks.

    Args:
        values: the content of params.yaml, in which anything may be wrong.
    """
    # Slow: they import torch.
    from clipzoo.methods import METHODS
    from clipzoo.models.architectures import open_clip_name

    sections = values if isinstance(values, dict) else {}
    model = sections.get("model")
    method, arch = (model.get(k) if isinstance(model, dict) else None for k in ("method", "arch"))
    faults = []
    try:
        if isinstance(arch, str) and arch:
            open_clip_name(arch)
    except ConfigError as error:
        faults.append(f"params.yaml: {error}")
    try:
        if isinstance(method, str) and method in METHODS and method in sections:
            build(METHODS[method].options, sections[method], "params.yaml", method)
    except ConfigError as error:
        faults.append(str(error))
    return faults


def check_predictions(params: Params) -> None:
    """Raise ConfigError unless the recipes to fuse with have kept their predictions."""
    for recipe in params.fusion.with_:
        if recipe not in recipe_names():
            raise ConfigError(f"fusion.with: found {recipe}; allowed: a recipe")
        if fault := fault_of_predictions(recipe, recipe_settings(recipe)):
            raise ConfigError(
                f"fusion.with: {recipe}: {fault}; `clipzoo zoo "
                f"{params.recipe}` runs {recipe} first and keeps its predictions"
            )


if __name__ == "__main__":
    run_stage(main, before=read_checked)
