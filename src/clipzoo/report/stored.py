"""The files that stages leave in metrics/ and plots/, each kind as a section.

The values are used as they are in the file; the sections only check them.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from clipzoo.files import Fault, ListError, json_sha256, read_json
from clipzoo.paths import metrics_file, settings_file
from clipzoo.recorded import MOST, MadeWith, VideoSet
from clipzoo.report.bounds import AUTHORS_ACCURACIES
from clipzoo.report.metric_names import NAMES, deviation_of, interval_of, kind_of
from clipzoo.sections import Section, SectionType, build, require
from clipzoo.settings import training_settings
from clipzoo.yaml_files import ConfigError

COMPANIONS = {
    key: [
        *deviation_of(key),
        *interval_of(key),
        *(["authors_num_videos", AUTHORS_ACCURACIES[key]] if key in AUTHORS_ACCURACIES else []),
    ]
    for key in NAMES
}
"""Results -> the numbers that stages write with each."""


def _number_or_text(value: object) -> object:
    if isinstance(value, (int, float)) and -MOST <= value <= MOST:
        return value
    if not isinstance(value, str):
        raise ValueError("a finite number, or text")
    return value


class Metrics(Section):
    """A metrics file: numbers and text by key, in one level."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_number_or_text)]]


class Training(Metrics, MadeWith):
    """train.json; without training it has no videos."""

    model_config = ConfigDict(extra="allow")
    num_videos: int = Field(ge=0, le=MOST)
    videos_sha256: str
    steps: int = Field(ge=0, le=MOST)


class Measured(Metrics, VideoSet, MadeWith):
    """test.json, fused.json or zero_shot_<dataset>.json: the results on a set of videos."""

    model_config = ConfigDict(extra="allow")
    video_source: str = ""

    @model_validator(mode="after")
    def _check_results(self) -> "Measured":
        values = self.model_extra or {}
        named = {end for key in NAMES for end in interval_of(key)}
        if old := [key for key in values if "ci95_" in key and key not in named]:
            raise ConfigError(
                f"found {', '.join(old)}, as an earlier version of this project wrote it; allowed: "
                "intervals with the name of their accuracy, such as top1_ci95_low"
            )
        needed = [k for key in COMPANIONS if key in values for k in (key, *COMPANIONS[key])]
        if missing := [f"missing key {key} (float)" for key in needed if key not in values]:
            raise ConfigError("\n".join(dict.fromkeys(missing)))
        enough = self.num_expected >= self.num_videos
        require(
            (enough, "num_expected", self.num_expected, f"num_videos, {self.num_videos}, or more"),
            *((not isinstance(values[k], str), k, values[k], "a finite number") for k in needed),
        )
        return self


KINDS: dict[str, type[Metrics]] = {
    "clip": Metrics,
    "train": Training,
    "test": Measured,
    "zero_shot": Measured,
    "fused": Measured,
}


class Settings(Section):
    """settings.json, the settings of a run by dotted key: those that are computed with."""

    model_config = ConfigDict(extra="allow")
    arch: str = Field(default="", alias="model.arch")
    weights: str = Field(default="", alias="model.weights")
    checkpoint: str = Field(default="", alias="model.checkpoint")
    num_segments: int = Field(default=1, ge=1, le=MOST, alias="model.num_segments")
    select: str = Field(default="", alias="train.select")
    authors_test_batch: int = Field(default=0, ge=0, le=MOST, alias="actionclip.authors_test_batch")


def again(run: str) -> str:
    """What to run so that all files of a run are written again, for messages."""
    return f"run `clipzoo zoo {run} --again`" if run else "run `dvc repro --force`"


def read_stored(
    section: type[SectionType], path: str | Path, run: str, error: Fault = ListError
) -> tuple[SectionType, dict[str, Any]]:
    """A JSON file that a stage wrote, as its section and as it is.

    Args:
        run: the run that the file belongs to; '' = none.

    Raises:
        error: the file cannot be read.
        ConfigError: names every key that is missing or wrong.
    """

    def fault(text: str) -> Exception:
        return error(f"{text}; {again(run)}")

    values = read_json(path, fault)
    checked = build(section, values, path, again=again(run))
    assert isinstance(values, dict), "build refuses the rest"
    return checked, values


def read_metrics_file(path: Path, run: str, error: Fault = ListError) -> dict[str, Any]:
    """The values of a metrics file; raises as `read_stored`."""
    return read_stored(KINDS.get(kind_of(path.stem), MadeWith), path, run, error)[1]


def load_settings(root: Path, recipe: str, stem: str) -> dict[str, Any] | None:
    """The settings of the metrics file `stem` of a run, in the repository `root`; None = not
    recorded, or those of another run or model.

    Raises:
        ListError, ConfigError: one of the two files is damaged (`read_stored`).
    """
    path = root / settings_file(recipe, stem)
    metrics = root / metrics_file(recipe, stem)
    if not (path.exists() and metrics.exists()):
        return None
    _, settings = read_stored(Settings, path, recipe)
    used, _ = read_stored(MadeWith, metrics, recipe)
    trained = json_sha256(training_settings(settings))
    if used.training_sha256 not in ("", trained):
        return None
    return settings if json_sha256(settings) == used.settings_sha256 else None
