"""check_names: refuse names of the run that cannot safely name folders, before DVC empties any."""

from pathlib import Path

from clipzoo.config import load_params
from clipzoo.files import replacing
from clipzoo.runtime.launch import run_stage

# Always the same text, so that another name alone reruns no stage that depends on the file.
TEXT = "The recipe and the datasets of params.yaml have plain names.\n"


def main() -> None:
    params = load_params()  # refuses other names
    data = params.data
    datasets = sorted({data.dataset, *data.datasets, *data.demo, *data.zero_shot})
    print(f"check_names: recipe {params.recipe}, datasets {', '.join(datasets)}")
    with replacing("data/checked_names.txt") as part:
        Path(part).write_text(TEXT, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
