"""`clipzoo compare [RUN ...]`: finished runs side by side, in a page."""

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.comparison.page import BENCHMARK, Benchmark, page
from clipzoo.comparison.runs import CompareError, read_run
from clipzoo.files import near, read_json, replacing
from clipzoo.paths import METRICS_DIR
from clipzoo.sections import build

METHODS = (
    "demo/single-view",
    "demo/bike-vcs-single-view",
    "demo/actionclip",
    "demo/mote",
    "demo/vificlip",
    "demo/openvclip",
)
"""A run of each method on the demo, with equal budgets: compared if no run is named."""
PAGE = Path("report/comparison.md")
"""Not tracked; docs/comparison.md is written by `--output`."""


def chosen_runs(patterns: Sequence[str]) -> list[str]:
    """Names of the runs that patterns stand for, each once, in the order of the patterns.

    Raises:
        CompareError: fewer than two; or a pattern matches no run with results.
    """
    folder = METRICS_DIR
    known = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("test.json"))
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = fnmatch.filter(known, pattern)
        if not matches:
            raise CompareError(
                f"{folder}/{pattern}/test.json: there is none{near(pattern, known)}; allowed: a "
                f"run with results, or a pattern; `make zoo RECIPES='{pattern}'` runs a recipe"
            )
        chosen |= dict.fromkeys(matches)
    if len(chosen) < 2:
        raise CompareError(f"found one run, {', '.join(chosen)}; allowed: two or more")
    return list(chosen)


def _run(arguments: argparse.Namespace) -> None:
    names = chosen_runs(arguments.runs or METHODS)
    runs = [read_run(name) for name in names]
    benchmark = None
    if BENCHMARK.exists():
        again = "`python benchmarks/methods.py` writes it again"
        benchmark = build(Benchmark, read_json(BENCHMARK), BENCHMARK, again=again)
    output: Path = arguments.output
    options = "" if output == PAGE else f" --output {output}"
    text = page(runs, benchmark, options)
    with replacing(output) as part:
        part.write_text(text, encoding="utf-8")
    print(f"wrote {output}: {', '.join(names)}")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "compare",
        "write report/comparison.md: finished runs side by side, with paired intervals",
        ("compare", "compare demo demo/bike-vcs", "compare 'demo/few-shot-*'"),
    )
    command.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help=f"names or patterns of runs with results; {', '.join(METHODS)} if none is given",
    )
    command.add_argument(
        "--output", type=Path, default=PAGE, metavar="FILE", help=f"the page; default: {PAGE}"
    )
    command.set_defaults(run=_run)
