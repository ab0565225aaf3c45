"""check_names: refuse names of the run that cannot safely name folders, before DVC empties any; and
record the content of the files that parameters name, so that new content reruns what reads it."""

from pathlib import Path

from clipzoo.runtime.launch import run_stage
from clipzoo.config import ConfigError, Params, load_params
from clipzoo.files import replacing
from clipzoo.given_files import record_given_files
from clipzoo.report.kept import fault_of_predictions
from clipzoo.report.recipes import recipe_names, recipe_settings

# Always the same text, so that another name alone reruns no stage that depends on the file.
TEXT = "The recipe and the datasets of params.yaml have plain names.\n"


def main() -> None:
    params = load_params()  # refuses other names
    data = params.data
    check_predictions(params)
    datasets = sorted({data.dataset, *data.datasets, *data.demo, *data.zero_shot})
    print(f"check_names: recipe {params.recipe}, datasets {', '.join(datasets)}")
    with replacing("data/checked_names.txt") as part:
        Path(part).write_text(TEXT, encoding="utf-8")
    record_given_files(params)


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
    run_stage(main)
