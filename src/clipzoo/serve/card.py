"""The model card of a published folder, and its results in the two forms that the hub reads.

    metrics/<recipe>/*.json -> rows -> README.md (front matter and text), .eval_results/*.yaml

Nothing here depends on the clock or the machine: the same run gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)

from clipzoo.config import Params
from clipzoo.files import few
from clipzoo.paths import METRICS_DIR, metrics_file
from clipzoo.report.metric_names import kind_of
from clipzoo.report.recipes import Loaded, Recipe, load_recipe, recipe_names
from clipzoo.report.released import recipe_of
from clipzoo.report.results import ReportError, Row, make_rows
from clipzoo.report.stored import read_metrics_file
from clipzoo.report.tables import markdown_table, results_table
from clipzoo.serve.folder import FolderConfig
from clipzoo.tensors import WeightsError

TASK = "video-classification"
"""The hub's name of what these models do."""
MIT, UNKNOWN = "mit", "unknown"
"""Licenses, as the hub names them."""
MOST_CLASSES = 30
"""Classes that a card lists; config.json has all."""
KINDS = ("train", "test", "zero_shot")
"""Kinds of metrics files that are about one model; a fusion has two."""
UNPUBLISHED = ("demo", "random")
"""Values of `model.weights` that take no weights of others."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """What the metrics files of a run say."""

    name: str
    recipe: Recipe | None
    """The recipe that it followed; None = its name is not that of a recipe."""
    files: Mapping[str, Mapping[str, Any]]
    """The values of each metrics file, by stem."""
    rows: list[Row]
    """Its results."""


def read_run(name: str, model_sha256: str) -> MeasuredRun:
    """The results of a run, all of which were measured with one model file.

    Args:
        name: the run.
        model_sha256: digest of models/model.safetensors.

    Raises:
        ReportError: test.json is missing, or a file cannot be read.
        WeightsError: a file was measured with another model.
        ConfigError: values of a file are missing or wrong.
    """
    files: dict[str, dict[str, Any]] = {}
    for path in sorted((METRICS_DIR / name).glob("*.json")):
        if kind_of(path.stem) in KINDS:
            files[path.stem] = read_metrics_file(path, name, ReportError)
    if "test" not in files:
        raise ReportError(
            f"{metrics_file(name, 'test')}: no such file, so that the card would have no numbers; "
            "`dvc repro` writes it"
        )
    for stem, values in files.items():
        if stem != "train" and (found := values.get("model_sha256", "")) != model_sha256:
            raise WeightsError(
                f"{metrics_file(name, stem)}: was measured with another model (sha256 "
                f"{found[:12] or 'not recorded'}, not {model_sha256[:12]}); `dvc repro` measures "
                "this one"
            )
    recipes: dict[str, Loaded] = {}
    for recipe in {name, recipe_of(name)} & set(recipe_names()):
        loaded, params = load_recipe(recipe)
        recipes[recipe] = (loaded, params.settings())
    rows = [row for row in make_rows({name: files}, recipes) if row.recipe == name]
    recipe = recipes.get(recipe_of(name) or name, (None, {}))[0]
    return MeasuredRun(name=name, recipe=recipe, files=files, rows=rows)


def license_of(params: Params) -> tuple[str, str]:
    """The license of a run's weights as the hub names it, and what is known of it in words.

    Only weights that were trained from nothing, on videos that were rendered here, are this
    project's own.
    """
    model, dataset = params.model, params.data.dataset
    rendered = dataset in params.data.demo
    if model.weights in UNPUBLISHED and not model.checkpoint and rendered:
        return MIT, (
            "MIT, as the code of clipzoo: the weights were trained from nothing, on videos that "
            "clipzoo renders."
        )
    sources = []
    if model.weights not in UNPUBLISHED:
        sources.append(f"the CLIP weights `{public_source(model.weights)}` ({model.arch})")
    if model.checkpoint:
        sources.append(f"the model file `{public_source(model.checkpoint)}`")
    if not rendered:
        sources.append(f"the videos of {dataset}")
    return UNKNOWN, (
        f"Not stated. The weights derive from {' and '.join(sources)}, whose terms clipzoo does "
        "not know; ask those who published them. The code of clipzoo is under the MIT license."
    )


def public_source(source: str) -> str:
    """A value of `model.weights` or `model.checkpoint` without the folder of a file, which concerns
    nobody else."""
    return Path(source).name


def model_card(about: FolderConfig, params: Params, run: MeasuredRun) -> str:
    """The text of README.md, with its front matter."""
    license_name, license_text = license_of(params)
    data = ModelCardData(
        license=license_name,
        library_name="clipzoo",
        pipeline_tag=TASK,
        tags=["clip", "action-recognition", about.method],
        model_name=run.name,
        eval_results=[_eval_result(row) for row in measured(run)],
    )
    sections = {
        "Results": _results(run),
        "Use": _use(about),
        "Model": _settings(about, params, run),
        "Classes": _classes(about),
        "Not measured": _bullets(_not_measured(about, params, run)),
        "Limits": _bullets(_limits(about, params)),
        "License": license_text,
    }
    body = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in sections.items())
    text = f"---\n{data.to_yaml()}\n---\n\n# {run.name}\n\n{_opening(about, run)}\n\n{body}\n"
    return str(ModelCard(text))  # as the hub's library would write it again


def result_files(run: MeasuredRun) -> dict[str, str]:
    """The files of .eval_results/: the text of one for each dataset, by name.

    The hub shows a result only where the dataset's id is that of a benchmark which is registered
    there.
    """
    entries: dict[str, list[EvalResultEntry]] = {}
    for row in measured(run):
        entry = EvalResultEntry(
            dataset_id=row.dataset, task_id=row.metric, value=row.value, notes=_notes(row)
        )
        entries.setdefault(row.dataset, []).append(entry)
    return {
        f"{dataset}.yaml": yaml.safe_dump(
            eval_result_entries_to_yaml(found), sort_keys=False, allow_unicode=True, width=4096
        )
        for dataset, found in sorted(entries.items())
    }


def measured(run: MeasuredRun) -> list[Row]:
    """The results that have a value; one with several published values stands once."""
    rows = {(r.dataset, r.protocol, r.metric): r for r in run.rows if r.value is not None}
    return list(rows.values())


def _eval_result(row: Row) -> EvalResult:
    interval = {"ci95_low": row.ci95_low, "ci95_high": row.ci95_high}
    return EvalResult(
        task_type=TASK,
        dataset_type=row.dataset,
        dataset_name=row.dataset,
        dataset_args={
            "protocol": row.protocol,
            "num_videos": row.num_videos,
            "videos_sha256": row.videos_sha256,
        },
        metric_type=row.metric,
        metric_name=row.result,
        metric_value=row.value,
        metric_args=interval if row.ci95_low is not None else None,
    )


def _notes(row: Row) -> str:
    """One line on how a result was measured."""
    parts = [row.result, "percent", row.protocol]
    if row.ci95_low is not None:
        parts.append(f"95% interval {row.ci95_low:.2f} to {row.ci95_high:.2f}")
    videos = f"{row.num_videos} of {row.num_expected} videos"
    if row.videos_sha256:
        videos += f" (sha256 of their ids {row.videos_sha256})"
    return "; ".join([*parts, videos])


def _opening(about: FolderConfig, run: MeasuredRun) -> str:
    recipe = run.recipe
    scope = "any classes" if about.kind == "open" else f"its own {len(about.class_names)} classes"
    text = (
        f"A video classifier for {scope}: {about.clip.arch} with the method `{about.method}` over "
        f"{about.num_segments} frames, trained and measured by clipzoo {about.version}"
    )
    if recipe is None:
        return f"{text}, as the run `{run.name}`, which follows no recipe."
    paper = f" Paper: {recipe.paper}." if recipe.paper else ""
    return f"{text}, as its recipe `{recipe_of(run.name) or run.name}`: {recipe.about}{paper}"


def _results(run: MeasuredRun) -> str:
    rows = measured(run)
    sets = {(row.dataset, row.num_videos, row.videos_sha256) for row in rows if row.videos_sha256}
    prints = [f"{dataset}, {num} videos: `{digest}`" for dataset, num, digest in sorted(sets)]
    return (
        f"Percentages, with 95% intervals in brackets.\n\n{results_table(rows)}\n"
        "The sets of videos, and the sha256 of their sorted ids, one a line:\n\n" + _bullets(prints)
    )


def _use(about: FolderConfig) -> str:
    classes = ', ["knitting", "archery"]' if about.kind == "open" else ""
    option = ' --class "knitting, archery"' if about.kind == "open" else ""
    return f"""\
With clipzoo installed, `MODEL` is this folder, or `hf:OWNER/NAME` on the hub:

    clipzoo predict video.mp4 --model MODEL{option}
    clipzoo embed videos/ mine.parquet --model MODEL

```python
import clipzoo

model = clipzoo.load("MODEL")
print(model.predict("video.mp4"{classes}).labels)
```

`model.safetensors` has the tensors and `config.json` all else; no code is loaded."""


def _settings(about: FolderConfig, params: Params, run: MeasuredRun) -> str:
    """A table of what the model is, how it was trained, and what it was made with."""
    views, clip, train = about.views, about.clip, params.train
    values = run.files["test"]
    dense = ", dense" if views.dense else ""
    options = ", ".join(f"{key} {value}" for key, value in about.options.items())
    trained = (
        f"{train.epochs} epochs, batch {train.batch_size}, lr {train.lr:g}, seed {params.seed}"
        if train.epochs
        else "not trained here"
    )
    rows = [
        ("Method", f"{about.method} ({options})"),
        ("CLIP", f"{clip.arch}, weights {public_source(clip.source)}"),
        ("Activation", "QuickGELU" if clip.quick_gelu else "GELU"),
        ("Input", f"{about.num_segments} frames, {clip.input_px} px"),
        ("Pixels", f"mean {_numbers(clip.pixels.mean)}, std {_numbers(clip.pixels.std)}"),
        ("Stored frames", f"size {about.frames.size}, JPEG quality {about.frames.quality}"),
        (
            "Views",
            f"clips {views.clips}, crops {views.crops}{dense}, short side {views.short_side_px} px",
        ),
        ("Templates", f"{len(about.templates)}: " + few([f"`{t}`" for t in about.templates])),
        ("Trained on", f"{params.data.dataset}, {len(about.class_names)} classes"),
        ("Training", trained),
        ("Environment", values.get("environment", "")),
        ("Settings", f"sha256 `{values.get('settings_sha256', '')}`"),
        ("Model file of the run", f"sha256 `{values.get('model_sha256', '')}`"),
    ]
    cells = [(name, text.replace("|", "\\|")) for name, text in rows if text]
    return markdown_table(("What", "Value"), cells)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _classes(about: FolderConfig) -> str:
    names, num = few(about.class_names, MOST_CLASSES), len(about.class_names)
    shown = "; `config.json` has all." if num > MOST_CLASSES else "."
    kind = (
        "Other classes can be named in words; what is measured of that is above as zero-shot."
        if about.kind == "open"
        else "The folder is closed: it has no text tower, and so no other classes."
    )
    return f"It was trained on {num}: {names}{shown}\n\n{kind}"


def _not_measured(about: FolderConfig, params: Params, run: MeasuredRun) -> list[str]:
    """What a reader could take for measured, and is not."""
    datasets = sorted({row.dataset for row in measured(run)})
    found = [f"Videos of other sources than {' and '.join(datasets)}."]
    if not any(kind_of(stem) == "zero_shot" for stem in run.files):
        found.append("Classes other than its own.")
    for dataset in params.data.zero_shot:
        if f"zero_shot_{dataset}" not in run.files:
            found.append(f"The videos of {dataset}, which the run names.")
    for stem, values in run.files.items():
        missing = values.get("num_expected", 0) - values.get("num_videos", 0)
        if stem != "train" and missing:
            found.append(f"{missing} of {values['num_expected']} videos of {values['dataset']}.")
    if changed := sorted({row.modified for row in run.rows if row.modified}):
        found.append(f"Its recipe as published: settings differ, `{'`; `'.join(changed)}`.")
    for row in run.rows:
        if row.value is None:
            where = f" ({row.protocol})" if row.protocol else ""
            found.append(f"The published {row.result} on {row.dataset}{where}.")
    if about.frames.fps is not None:
        found.append(f"Videos at other rates than {about.frames.fps:g} frames a second.")
    found.append("Calibration of the probabilities, speed, and bias between groups of people.")
    return list(dict.fromkeys(found))


def _limits(about: FolderConfig, params: Params) -> list[str]:
    limits = [
        "Probabilities are those of the classes that compete, and sum to 1 for a video of none of "
        "them, too; the cosine beside them does not depend on the other classes.",
        f"It looks at {about.num_segments} frames a clip, spread over the whole video: what is "
        "short in a long video may lie between them.",
    ]
    if params.data.dataset in params.data.demo:
        limits.append(
            "It has seen rendered shapes alone. On real videos its answers mean nothing; it shows "
            "how the software works."
        )
    return limits


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
