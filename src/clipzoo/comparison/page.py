"""The page of `compare`, such as docs/comparison.md: runs side by side, with paired intervals.

The same files give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import Field

from clipzoo.comparison.runs import Measured, Run, check_same_videos
from clipzoo.evaluate.intervals import paired_interval
from clipzoo.recorded import MOST
from clipzoo.report.metric_names import interval_of
from clipzoo.report.tables import markdown_table
from clipzoo.sections import Section

BENCHMARK = Path("benchmarks/results/methods.json")
"""Written by benchmarks/methods.py."""
MAX_CELL = 60
"""Letters of a setting in a table."""
BUDGETS = (
    "data.dataset",
    "data.split",
    "data.shots",
    "data.classes",
    "data.min_frames",
    "frames.size",
    "model.arch",
    "model.weights",
    "model.num_segments",
    "model.input_px",
    "train.epochs",
    "train.batch_size",
    "test.clips",
    "test.crops",
    "test.dense",
    "zero_shot.clips",
    "zero_shot.crops",
)
"""Settings that say how much a run may see and compute."""

INTRODUCTION = """# Methods compared

Written by
`clipzoo compare {names}`
from files in git: `metrics/`, `plots/` (settings, and the class predicted for each video) and
`{benchmark}`. Do not edit this page; run the command again.

## How to read it

- Accuracies are percentages. The 95% interval of an accuracy (Wilson) is in brackets.
- A difference is the accuracy of the first run minus that of the second on the same videos, in
  percentage points. Its 95% interval is paired: it depends on the videos that only one of the two
  gets right, whose numbers are shown. It is Tango's score interval (Statistics in Medicine 17,
  1998), not a bootstrap: every resample of two runs that differ on no video is exactly 0, as if
  nothing were uncertain.
- "not shown" means that the interval contains 0: these videos do not show which run is better. It
  does not mean that both are equally good. The intervals of several pairs are not corrected for
  their number.
- The intervals are about the choice of the videos alone. Each run is one training with one seed;
  another seed gives other numbers, and how far these spread was not measured here.
"""
DEMO_WARNING = """\
- The demo is a rendered world of moving shapes with a small stand-in for CLIP, trained in minutes.
  Its numbers show that the methods run and learn. They do not say which method is better on real
  videos; the published values on those are in `RESULTS.md`. The stand-in is pre-trained on captions
  in the prompts of the run, so runs with other `text.templates` start from other weights.
"""
ZERO_SHOT_INTRODUCTION = """\
Training saw none of these videos. ± is the standard deviation over 10 halves of the classes. The
raw CLIP is what the run started from, with the prompts of the run; the gain over it has a paired
interval too.

"""
BENCHMARK_INTRODUCTION = """\
Measured by `python benchmarks/methods.py` on one machine ({machine})
with random weights and frames, not in the runs above. The methods take turns: a ratio is to
`{base}` in the same round, the median of all rounds, with the least and the most in brackets.
Seconds are of the processor, on one thread. Memory is the most that a process of its own needed
beyond what its imports take. A step is an optimizer step, with the texts that it needs; a test clip
is encoded and scored, with the texts encoded before. Reading frames is not included. Other machines
give other seconds, and GPUs other ratios.
"""
BENCHMARK_HEADER = (
    "Run",
    "Trained parameters",
    "Step",
    "Ratio",
    "Memory",
    "Test clip",
    "Ratio",
    "Memory",
)


class Timings(Section):
    """What benchmarks/methods.py measured of one run."""

    parameters: int = Field(ge=0, le=MOST)
    step_seconds: float = Field(ge=0, le=MOST)
    step_ratio: float = Field(ge=0, le=MOST)
    step_least: float = Field(ge=0, le=MOST)
    step_most: float = Field(ge=0, le=MOST)
    step_mb: float = Field(ge=0, le=MOST)
    clip_seconds: float = Field(ge=0, le=MOST)
    clip_ratio: float = Field(ge=0, le=MOST)
    clip_least: float = Field(ge=0, le=MOST)
    clip_most: float = Field(ge=0, le=MOST)
    clip_mb: float = Field(ge=0, le=MOST)


class Case(Section):
    """Runs that took turns."""

    title: str
    runs: dict[str, Timings]


class Benchmark(Section):
    """The content of `BENCHMARK`."""

    machine: str
    base: str
    settings_sha256: dict[str, str]
    cases: list[Case]


def page(runs: Sequence[Run], benchmark: Benchmark | None, options: str = "") -> str:
    """The text of the page.

    Args:
        runs: two or more.
        benchmark: the content of `BENCHMARK`; None = it was not measured.
        options: what the command that writes the page has after the names of the runs.

    Raises:
        CompareError: the runs were measured on different videos.
    """
    names = " ".join(run.name for run in runs) + options
    text = INTRODUCTION.format(names=names, benchmark=BENCHMARK)
    if any(run.options.weights == "demo" for run in runs):
        text += DEMO_WARNING
    text += "\n## Runs and budgets\n\n" + _describe_budgets(runs)
    text += "\n## Accuracy\n\n" + _describe_accuracy(runs)
    shared = [d for d in runs[0].zero_shot if all(d in run.zero_shot for run in runs)]
    for dataset in shared:
        text += f"\n## Zero-shot: {dataset}\n\n" + _describe_zero_shot(runs, dataset)
    rest = sorted({d for run in runs for d in run.zero_shot} - set(shared))
    if rest:
        text += f"\nZero-shot sets that not all of these runs have: {', '.join(rest)}.\n"
    text += "\n## Time and memory\n\n" + _describe_benchmark(runs, benchmark)
    return text + "\n## Other settings that differ\n\n" + _describe_settings(runs)


def _facts(run: Run) -> dict[str, str]:
    """The budgets of a run, in words."""
    facts = {key: _text(run.settings.get(key, "")) for key in BUDGETS}
    training = run.training
    facts["training videos"] = f"{training['num_videos']} ({training['videos_sha256'][:8]})"
    facts["optimizer steps"] = str(training["steps"])
    return facts


def _text(value: object) -> str:
    """A setting as JSON; text without its quotes."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _describe_budgets(runs: Sequence[Run]) -> str:
    rows = [
        (f"`{run.name}`", run.options.method, run.test.values.get("environment", ""))
        for run in runs
    ]
    text = markdown_table(("Run", "Method", "Computed on"), rows)
    facts = [_facts(run) for run in runs]
    unequal = [key for key in facts[0] if len({fact[key] for fact in facts}) > 1]
    if unequal:
        text += "\n**The budgets are not equal**, so a difference may come from these:\n\n"
        rows = [(f"`{key}`", *(fact[key] for fact in facts)) for key in unequal]
        text += markdown_table(("Budget", *(f"`{run.name}`" for run in runs)), rows)
        if any(key.startswith("test.") for key in unequal):
            text += "\nThe views of the test do not matter to the paired differences: see there.\n"
    equal = [f"`{key}` {value}" for key, value in facts[0].items() if key not in unequal]
    title = "Equal for all runs" if unequal else "The budgets are equal"
    return f"{text}\n{title}: {', '.join(equal)}.\n"


def _describe_accuracy(runs: Sequence[Run]) -> str:
    sets = {run.name: run.test for run in runs}
    check_same_videos(sets, "test")
    rows = [
        (
            f"`{run.name}`",
            run.options.method,
            _with_interval(run.test.values, "top1"),
            _single_view(run),
        )
        for run in runs
    ]
    header = ("Run", "Method", "Top-1", "Top-1 of a single view")
    text = _describe_set(sets) + markdown_table(header, rows) + "\n"
    if len({measured.values["protocol"] for measured in sets.values()}) > 1:
        if any(run.options.dense for run in runs):
            return text + "The views differ, so there are no paired differences.\n"
        text += "The views differ, so the differences are those of a single view of each video.\n\n"
        sets = {name: measured.of_a_single_view() for name, measured in sets.items()}
    return text + _differences(sets)


def _single_view(run: Run) -> str:
    """Its accuracy, where a test of a single view has no other; '' = not measured."""
    options = run.options
    one = (options.clips, options.crops, options.dense) == (1, 1, False)
    prefix = "" if one else "single_view_"
    return _with_interval(run.test.values, f"{prefix}top1")


def _describe_zero_shot(runs: Sequence[Run], dataset: str) -> str:
    sets = {run.name: run.zero_shot[dataset] for run in runs}
    check_same_videos(sets, f"zero_shot_{dataset}")
    rows = []
    for run in runs:
        values = sets[run.name].values
        half = ""
        if "half_top1_mean" in values:
            half = f"{values['half_top1_mean']:.1f} ± {values['half_top1_std']:.1f}"
        rows.append(
            (
                f"`{run.name}`",
                run.options.method,
                _with_interval(values, "full_top1"),
                half,
                _with_interval(values, "raw_full_top1"),
                _with_interval(values, "gain", "+"),
            )
        )
    header = ("Run", "Method", "Top-1", "Half of the classes", "Raw CLIP", "Gain over it")
    text = _describe_set(sets) + ZERO_SHOT_INTRODUCTION
    return text + markdown_table(header, rows) + "\n" + _differences(sets)


def _describe_set(sets: Mapping[str, Measured]) -> str:
    """The videos of a set, and the views of each run."""
    values = next(iter(sets.values())).values
    protocols = dict.fromkeys(measured.values["protocol"] for measured in sets.values())
    return (
        f"{len(next(iter(sets.values())).videos)} videos of {values['dataset']} (fingerprint "
        f"{values['videos_sha256'][:8]}); {' / '.join(protocols)}.\n\n"
    )


def _differences(sets: Mapping[str, Measured]) -> str:
    only = ("Only the first right", "Only the second right")
    rows = [difference_row(first, second, sets) for first, second in combinations(sets, 2)]
    return markdown_table(("Pair", "Difference in top-1", *only, "Better"), rows)


def _with_interval(values: Mapping[str, Any], key: str, sign: str = "") -> str:
    """`97.1 (94.1 to 98.6)`; '' if the set has no such value."""
    if key not in values:
        return ""
    numbers = (values[k] for k in (key, *interval_of(key)))
    value, low, high = (f"{number:{sign}.1f}" for number in numbers)
    return f"{value} ({low} to {high})"


def _describe_settings(runs: Sequence[Run]) -> str:
    """All settings that differ between the runs and are not budgets."""
    keys = [key for key in runs[0].settings if key != "recipe" and key not in BUDGETS]
    common = [key for key in keys if all(key in run.settings for run in runs)]
    rows = []
    for key in common:
        values = [_text(run.settings[key]) for run in runs]
        if len(set(values)) > 1:
            cut = [v if len(v) <= MAX_CELL else f"{v[: MAX_CELL - 2].rstrip()} …" for v in values]
            rows.append((f"`{key}`", *(value.replace("|", r"\|") for value in cut)))
    text = "No setting that all runs have differs, except for the budgets above.\n"
    if rows:
        text = markdown_table(("Setting", *(f"`{run.name}`" for run in runs)), rows)
        text += "\nLong values are cut; `plots/<recipe>/settings.json` has all of them.\n"
    for run in runs:
        own = [
            f"`{key}` {_text(value)}"
            for key, value in run.settings.items()
            if key not in (*common, *BUDGETS, "recipe")
        ]
        if own:
            text += f"\nOnly in some runs, here `{run.name}`: {', '.join(own)}.\n"
    return text


def _describe_benchmark(runs: Sequence[Run], benchmark: Benchmark | None) -> str:
    """The tables of benchmarks/methods.py, of these runs."""
    if benchmark is None:
        return f"Not measured: `python benchmarks/methods.py` writes `{BENCHMARK}`.\n"
    text = BENCHMARK_INTRODUCTION.format(machine=benchmark.machine, base=benchmark.base)
    for case in benchmark.cases:
        rows = [_benchmark_row(run, case.runs.get(run.name)) for run in runs]
        text += f"\n{case.title}:\n\n{markdown_table(BENCHMARK_HEADER, rows)}"
    shas = benchmark.settings_sha256
    used = {run.name: run.test.values["settings_sha256"] for run in runs}
    stale = [name for name, sha in used.items() if shas.get(name, sha) != sha]
    if stale:
        text += f"\nMeasured with other settings than the runs above: {', '.join(stale)}.\n"
    return text


def _benchmark_row(run: Run, measured: Timings | None) -> tuple[str, ...]:
    name = f"`{run.name}`"
    if measured is None:
        return name, "not measured", *[""] * (len(BENCHMARK_HEADER) - 2)
    cells = [f"{measured.parameters / 1e6:.2f} M"]
    for key in ("step", "clip"):
        kinds = ("ratio", "least", "most", "seconds", "mb")
        ratio, least, most, seconds, megabytes = (getattr(measured, f"{key}_{k}") for k in kinds)
        time = f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
        cells += [time, f"{ratio:.2f} ({least:.2f} to {most:.2f})"]
        cells.append(f"{megabytes:.0f} MB")
    return name, *cells


def difference_row(first: str, second: str, sets: Mapping[str, Measured]) -> tuple[str, ...]:
    """The cells that compare two runs on one set of videos."""
    pairs = list(zip(sets[first].correct, sets[second].correct, strict=True))
    won, lost = pairs.count((True, False)), pairs.count((False, True))
    low, high = paired_interval(won, lost, len(pairs))
    verdict = "not shown"
    if low > 0 or high < 0:
        verdict = f"`{first if low > 0 else second}`"
    return (
        f"`{first}` - `{second}`",
        f"{100 * (won - lost) / len(pairs):+.1f} ({low:+.1f} to {high:+.1f})",
        str(won),
        str(lost),
        verdict,
    )
