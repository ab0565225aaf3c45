"""`clipzoo predictions [SET] [--wrong] [--top N]`: what was predicted for each video."""

import argparse
from pathlib import Path

from clipzoo.commands.arguments import Commands, add_command, aligned
from clipzoo.commands.use import PARAMS_FILE
from clipzoo.config import load_params
from clipzoo.evaluate.prediction_files import PredictedVideo, read_checked
from clipzoo.files import ListError
from clipzoo.paths import PREDICTIONS_DIR

HEADER = ("Video", "Class", "Predicted", "Probability", "Rank")


def prediction_files(name: str | None) -> list[Path]:
    """The parquet files of the active run, or those that a name stands for.

    Args:
        name: a path, `test`, `zero_shot_<dataset>` or a dataset; None = all of the active run.

    Raises:
        ListError: there is no such file; the message names the existing ones.
        ConfigError: params.yaml cannot be read.
    """
    data = load_params(PARAMS_FILE).data
    sets = {"test": data.dataset, **{f"zero_shot_{dataset}": dataset for dataset in data.zero_shot}}
    known = {stem: PREDICTIONS_DIR / f"{stem}.parquet" for stem in sets}
    if name is None:
        chosen = list(known.values())
    elif name in known or name in sets.values():
        chosen = [path for stem, path in known.items() if name in (stem, sets[stem])]
    else:
        chosen = [Path(name).with_suffix(".parquet")]
    files = [path for path in chosen if path.is_file()]
    if not files:
        there = ", ".join(str(path) for path in sorted(PREDICTIONS_DIR.glob("*.parquet")))
        raise ListError(
            f"predictions: found no {' and no '.join(map(str, chosen))}; allowed: "
            f"{', '.join(sets)}, one of their datasets, or a file ({there or 'there is none'}); "
            f"`dvc repro` writes those of the recipe in {PARAMS_FILE}"
        )
    return files


def describe(path: Path, *, wrong: bool, top: int) -> str:
    """A table of a file's videos.

    Args:
        path: a parquet file.
        wrong: only those whose most likely class is not (one of) the true one, the most confident
            first; otherwise all in the order of the file.
        top: largest number of lines; 0 = all.
    """
    rows = read_checked(path)
    mistakes = [row for row in rows if row.rank != 1]
    text = f"{path}: {len(rows)} videos, {len(mistakes)} wrong\n"
    if wrong:
        rows = sorted(mistakes, key=lambda row: -row.probability)
    if not rows:
        return text
    shown = rows[:top] if top else rows
    text += aligned(HEADER, [_cells(row) for row in shown])
    more = len(rows) - len(shown)
    return text + (f"... and {more} more; --top 0 shows all\n" if more else "")


def _cells(row: PredictedVideo) -> tuple[str, ...]:
    rank = "" if row.rank is None else str(row.rank)
    return (row.video_id, row.class_name, row.predicted, f"{row.probability:.3f}", rank)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.top < 0:
        raise ListError(f"--top: found {arguments.top}; allowed: 0 (all) or more")
    texts = [
        describe(path, wrong=arguments.wrong, top=arguments.top)
        for path in prediction_files(arguments.set)
    ]
    print("\n".join(texts), end="")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "predictions",
        "show what the last run predicted for each video",
        ("predictions", "predictions test --wrong", "predictions demo_unseen --wrong --top 0"),
    )
    command.add_argument(
        "set",
        nargs="?",
        metavar="SET",
        help="test, zero_shot_<dataset>, a dataset or a .parquet file; all of the run if not given",
    )
    command.add_argument(
        "--wrong", action="store_true", help="only wrong ones, the most confident first"
    )
    command.add_argument(
        "--top", type=int, default=20, metavar="N", help="at most N videos (20); 0 = all"
    )
    command.set_defaults(run=_run)
