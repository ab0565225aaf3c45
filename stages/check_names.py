"""check_names: refuse names of the run that cannot safely name folders, before DVC empties any; and
a fusion with a recipe that has not been run."""

from pathlib import Path

from clipzoo.runtime.launch import run_stage
from clipzoo.config import ConfigError, load_params
from clipzoo.files import replacing

# Always the same text, so that another name alone reruns no stage that depends on the file.
TEXT = "The recipe and the datasets of params.yaml have plain names.\n"


def main() -> None:
    params = load_params()  # refuses other names
    data = params.data
    # Of the two lists that repeat stages of a method, `load_params` has checked the names.
    for recipe in params.fused_with:
        path = Path(f"predictions/zoo/{recipe}/test.safetensors")
        if not path.is_file():
            raise ConfigError(
                f"bike_attributes.fused_with: {recipe}: {path} is missing; `python -m clipzoo zoo "
                f"{params.recipe}` runs {recipe} first and keeps its predictions"
            )
    datasets = sorted({data.dataset, *data.datasets, *data.demo, *data.zero_shot})
    print(f"check_names: recipe {params.recipe}, datasets {', '.join(datasets)}")
    with replacing("data/checked_names.txt") as part:
        Path(part).write_text(TEXT, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
