"""`clipzoo check RECIPE`: what the run of a recipe needs, what is missing, how long it takes.

Estimates and where they come from:

- frames on disk: 14 KB for a 340x256 JPEG of quality 3, in proportion to the area (4:3 assumed),
  times the median number of frames of a video in the published list;
- GPU memory: the model runs on the meta device, where nothing is computed, and the sizes of the
  tensors that autograd would save are summed (methods/memory/estimates.py); where there is a GPU,
  training steps on noise show what fits it (trial_steps.py); then what the authors state;
- GPU hours: from the recipe.
"""

import argparse
import math
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.dataset_findings import (
    Finding,
    dataset_findings,
    num_lines,
    spec_or_none,
    try_survey,
)
from clipzoo.commands.missing import Survey
from clipzoo.commands.planned import (
    UNCHANGED,
    Options,
    add_options,
    option_words,
    plan,
    read_arguments,
)
from clipzoo.commands.use import PARAMS_FILE, leftovers
from clipzoo.config import (
    SOURCE_SIZE,
    ConfigError,
    Params,
    is_file_name,
    load_params,
    replace,
)
from clipzoo.data.index import index_path
from clipzoo.data.records import read_labels
from clipzoo.files import shown
from clipzoo.frames.manifest import manifest_path
from clipzoo.paths import KEPT_PREDICTIONS_DIR, list_file
from clipzoo.report.kept import fault_of_model, fault_of_predictions, kept_model
from clipzoo.report.recipes import Recipe, load_recipe, recipe_settings
from clipzoo.report.verdicts import video_sets

FRAME_BYTES = 14_000
FRAME_AREA = 340 * 256
ASPECT = 4 / 3
SOURCE_PX = 480
"""Short side of videos whose sizes are not known before they are decoded."""
DEFAULT_FRAMES = 300
"""Frames of a video if no published list gives them: 10 s at 30 a second."""
VERDICT_WIDTH = 120
"""Characters of the first fault in the verdict; the line below has all of it."""
MARKS = {True: "ok", False: "MISSING", None: "note"}


def check_recipe(name: str, options: Options = UNCHANGED) -> list[Finding]:
    """Everything that can be checked before a run.

    Args:
        name: the recipe; the section `runtime` comes from params.yaml.

    Raises:
        ConfigError: an unknown or invalid recipe; or as `plan`.
    """
    run = plan(name, options, load_params(PARAMS_FILE).runtime.model_dump())
    recipe, params = run.recipe, run.params
    if run.given_model is not None:  # rather than its link, which this command does not make
        params = replace(params, {"model.checkpoint": str(run.given_model)})
    surveys = {dataset: try_survey(params, dataset) for dataset in params.data.datasets}
    return [
        *(
            finding
            for dataset, found in surveys.items()
            for finding in dataset_findings(params, dataset, found)
        ),
        *weights_findings(params, recipe),
        *(released_findings(params) if run.options.released else ()),
        *precision_findings(params),
        *fusion_findings(params, run.options.parents),
        _disk(params, recipe, surveys),
        *_machine(params),
        *_authors_memory(params, recipe),
        Finding(topic="GPU hours", text=_hours(recipe, params), ok=None),
    ]


def weights_findings(params: Params, recipe: Recipe) -> Iterator[Finding]:
    """The CLIP weights, what its texts need, and the model to start from."""
    yield _clip_weights("CLIP weights", params.model.arch, params.model.weights)
    scorer = params.attributes
    yield from _text_extra("texts", params.model.arch)
    if scorer.datasets and scorer.weights:
        yield _clip_weights("weights for attributes", scorer.arch, scorer.weights)
        yield from _text_extra("texts for attributes", scorer.arch)
    checkpoint = params.model.checkpoint
    if not checkpoint:
        return
    if recipe.parent and checkpoint == str(kept_model(recipe.parent)):
        fault = fault_of_model(recipe.parent, recipe_settings(recipe.parent))
        advice = f"`make zoo` runs its recipe {recipe.parent} first, or --parent FILE gives a file"
        text = f"{fault}; {advice} of it" if fault else checkpoint
        yield Finding(topic="parent's model", text=text, ok=not fault or None)
    else:
        yield Finding(topic="checkpoint", text=checkpoint, ok=Path(checkpoint).is_file())


def released_findings(params: Params) -> Iterator[Finding]:
    """Whether the released file can be read, as the stage train reads it, and fits the model."""
    from clipzoo.methods import check_released
    from clipzoo.methods.memory import estimates
    from clipzoo.tensors import WeightsError

    path = Path(params.model.checkpoint)
    if path.suffix == ".safetensors" or not path.is_file():  # of this project, or missing
        return
    topic = "content of the checkpoint"
    try:
        model = estimates.meta_model(params, training=False).to_empty(device="cpu")
        for value in model.state_dict().values():
            value.zero_()
        check_released(model, params)
    except (ConfigError, WeightsError) as error:
        yield Finding(topic=topic, text=str(error), ok=False)
    else:
        yield Finding(topic=topic, text="fits the model; train compares its texts too", ok=True)


def _text_extra(topic: str, arch: str) -> Iterator[Finding]:
    """A fault where an architecture needs the extra `text`, which is not installed."""
    from clipzoo.models.architectures import check_text_extra
    from clipzoo.tensors import WeightsError

    try:
        check_text_extra(arch)
    except (ConfigError, WeightsError) as error:
        yield Finding(topic=topic, text=str(error), ok=False)


def _clip_weights(topic: str, arch: str, weights: str) -> Finding:
    """Where the weights of a CLIP come from: a file, a tag in `CLIPZOO_WEIGHTS`, a download."""
    import open_clip  # slow to import, and other commands do not need it

    from clipzoo.models.architectures import is_elsewhere, open_clip_name, read_elsewhere
    from clipzoo.models.weights import BESIDE
    from clipzoo.models.weights_folder import VARIABLE, find_tag, weights_files, weights_folder
    from clipzoo.tensors import WeightsError

    if weights in ("demo", "random"):
        return Finding(topic=topic, text=f"{weights}: made by prepare_clip", ok=True)
    name = open_clip_name(arch)
    if is_elsewhere(name) and weights == BESIDE:
        try:
            read_elsewhere(name)
        except WeightsError as error:
            return Finding(topic=topic, text=str(error), ok=False)
        return Finding(topic=topic, text=f"those of {name}, which prepare_clip reads", ok=None)
    if weights not in open_clip.list_pretrained_tags_by_model(name):
        text = weights
        if not is_file_name(weights):
            text += f": {name} has no such tag, and there is no such file"
        return Finding(topic=topic, text=text, ok=Path(weights).is_file())
    try:
        local, folder = find_tag(name, weights), weights_folder()
    except WeightsError as error:
        return Finding(topic=topic, text=str(error), ok=False)
    if local:
        text = f"{weights}: {'; '.join([f'{local.path} ({local.checked})', *local.notes])}"
        return Finding(topic=topic, text=text, ok=True)
    text = f"{weights}: prepare_clip downloads them, unless they are in the model hub's cache"
    if folder:
        text += f"; not among the {len(list(weights_files(folder)))} weights files in {folder}"
    else:
        text += f" (or set {VARIABLE} to a folder that has their file)"
    return Finding(topic=topic, text=text, ok=None)


def precision_findings(params: Params) -> Iterator[Finding]:
    """A note where the model would run in fp16 on a CPU."""
    from clipzoo.methods.memory.start import slow_precisions
    from clipzoo.runtime.machine import count_gpus

    try:
        slow = "" if count_gpus(params.runtime.device) else slow_precisions(params)
    except ConfigError:  # `_machine` reports it
        return
    if slow:
        yield Finding(topic="precision", text=slow, ok=None)


def fusion_findings(params: Params, given: Mapping[str, Path]) -> Iterator[Finding]:
    """The predictions of other recipes to fuse with; `given` has files that replace them."""
    for parent in params.fusion.with_:
        if parent in given:
            yield Finding(topic="parent's predictions", text=str(given[parent]), ok=True)
            continue
        fault = fault_of_predictions(parent, recipe_settings(parent))
        text = f"{KEPT_PREDICTIONS_DIR}/{parent}/"
        if fault:
            text = f"{fault}; `make zoo` runs the recipe {parent} first, or --parent FILE gives a "
            text += "file of it"
        yield Finding(topic="parent's predictions", text=text, ok=not fault or None)


def _frames_a_video(recipe: Recipe) -> int:
    """Median frames of the published list that the recipe is tested on."""
    set_name = recipe.video_sets.get("test")
    medians = (known.median_frames for known in video_sets() if known.name == set_name)
    return next(filter(None, medians), DEFAULT_FRAMES)


def frame_bytes(size: str) -> float:
    """Estimated bytes of a stored frame; `size` is `frames.size`."""
    size = str(SOURCE_PX) if size == SOURCE_SIZE else size
    if "x" in size:
        width, height = map(int, size.split("x"))
        area = width * height
    else:
        area = int(size) ** 2 * ASPECT
    return FRAME_BYTES * area / FRAME_AREA


def _disk(params: Params, recipe: Recipe, surveys: Mapping[str, Survey | str]) -> Finding:
    """Disk space for the frames that are not extracted yet."""
    missing = 0.0
    for dataset, found in surveys.items():
        spec = spec_or_none(dataset)
        frames = index_path(dataset)
        if spec is None or spec.reader != "shards" or frames.is_file():
            continue
        videos = found.num_wanted if isinstance(found, Survey) else None
        if videos is None:
            videos = num_lines(manifest_path(dataset))
        if videos is None:
            videos = spec.total(params.data.split)
        missing += videos * _frames_a_video(recipe) * frame_bytes(str(params.frames.size))
    free = shutil.disk_usage(".").free
    text = f"about {missing / 1e9:.0f} GB of frames to extract, {free / 1e9:.0f} GB free"
    demo = set(params.data.datasets) <= set(params.data.demo)
    return Finding(topic="disk", text=text, ok=demo or missing < free)


def _machine(params: Params) -> Iterator[Finding]:
    """What the run will use on this machine, the memory it needs, and how batches are divided."""
    from clipzoo.runtime.machine import count_gpus, count_processes, count_workers

    runtime = params.runtime
    try:
        num_gpus, processes = count_gpus(runtime.device), count_processes(runtime)
    except ConfigError as error:
        yield Finding(topic="machine", text=str(error), ok=False)
        return
    workers = count_workers(runtime, processes, on_gpu=num_gpus > 0)
    micro_batch, memory = _memory(params, num_gpus, processes)
    text = f"processes {processes}, workers {workers}, micro_batch {micro_batch}, "
    text += f"{num_gpus} GPUs" if num_gpus else "no GPU"
    chosen = [key for key in ("processes", "workers", "micro_batch") if not getattr(runtime, key)]
    if chosen:
        text += f" (chosen for this machine: {', '.join(chosen)})"
    yield Finding(topic="machine", text=text, ok=True)
    yield memory
    if num_gpus and params.train.epochs:
        yield _trial(params, processes, micro_batch)
    yield from _batches(params, processes, micro_batch)


def _memory(params: Params, num_gpus: int, processes: int) -> tuple[int, Finding]:
    """The micro-batch of training, and what is known of the memory that it needs."""
    import torch  # slow to import, and other commands do not need it

    from clipzoo.methods.memory import estimates

    model = estimates.meta_model(params)
    parameters = estimates.num_parameters(model)
    size, most = 0.0, 0
    micro_batch = params.runtime.micro_batch or estimates.CPU_MICRO_BATCH
    if num_gpus:
        size = min(estimates.free_gpu_bytes(i) for i in range(num_gpus))
        most = estimates.fitting_clips(params, size, training=True)
        if not params.runtime.micro_batch:
            micro_batch = estimates.choose_micro_batch(params, most, processes, training=True)
    if params.train.epochs == 0:
        text = f"evaluation only: {parameters / 1e6:.0f} M parameters"
        return micro_batch, Finding(topic="GPU memory", text=text, ok=None)
    clips = min(micro_batch, math.ceil(params.train.batch_size / processes))
    each = estimates.activation_bytes(model, params)
    total = estimates.kept_bytes(model, params) + clips * each + estimates.CUDA_BYTES
    text = (
        f"about {total / 1e9:.1f} GB in training: {parameters / 1e6:.0f} M parameters, "
        f"{clips} clips of {each / 1e9:.2f} GB ({params.train.precision})"
    )
    if not num_gpus:
        return micro_batch, Finding(topic="GPU memory", text=f"{text}; no GPU here", ok=None)
    fits = clips <= most
    text += f"; {torch.cuda.get_device_name(0)} has {(size + estimates.CUDA_BYTES) / 1e9:.0f} GB"
    if not fits:
        text += f"; runtime.micro_batch {max(most, 1)} would fit, or train.activation_checkpointing"
    return micro_batch, Finding(topic="GPU memory", text=text, ok=fits)


def _authors_memory(params: Params, recipe: Recipe) -> Iterator[Finding]:
    """The memory that the authors state for training, and the estimate for the same."""
    from clipzoo.methods.memory import estimates

    authors = recipe.authors
    if not (authors.memory_gb and authors.config_gpus and params.train.epochs):
        return
    clips = params.train.batch_size // authors.config_gpus
    params = replace(params, {"train.activation_checkpointing": True})  # as their code always does
    model = estimates.meta_model(params)
    kept = estimates.kept_bytes(model, params) + estimates.CUDA_BYTES
    total = kept + clips * estimates.activation_bytes(model, params)
    text = (
        f"the authors state {authors.memory_gb:g} GB on each of {authors.config_gpus} GPUs, for "
        f"{clips} clips with activation checkpointing; for the same, about {total / 1e9:.1f} GB "
        "here, the one block that is recomputed at a time excluded"
    )
    yield Finding(topic="authors' memory", text=text, ok=None)


def _trial(params: Params, processes: int, micro_batch: int) -> Finding:
    """The largest micro-batch that this machine's first GPU can take, by real steps on noise."""
    import torch

    from clipzoo.commands import trial_steps
    from clipzoo.methods.memory import estimates

    share = math.ceil(params.train.batch_size / processes)
    largest = trial_steps.largest_on_gpu(params, share, torch.device("cuda", 0))
    text = f"{largest} of a process's {share} clips a step fit the GPU, by real steps on noise"
    best = estimates.choose_micro_batch(params, largest, processes, training=True)
    if largest and best != min(micro_batch, share):
        text += f"; runtime.micro_batch {best} would make equal parts of them"
    return Finding(topic="micro-batch", text=text, ok=0 < min(micro_batch, share) <= largest)


def _batches(params: Params, processes: int, micro_batch: int) -> Iterator[Finding]:
    """How batches are divided on this machine, and the number of steps."""
    train = params.train
    if train.epochs == 0:
        yield Finding(topic="batch", text="no training (train.epochs 0)", ok=True)
        return
    group = params.augment.dealt_together
    share = math.ceil(math.ceil(train.batch_size / group) / processes) * group
    micro_batch = max(micro_batch // group, 1) * group
    parts = math.ceil(share / micro_batch)
    micro = min(micro_batch, share)
    text = f"{train.batch_size} clips a step = {processes} processes x {parts} micro-batches "
    text += f"of {micro}"
    if processes * parts * micro != train.batch_size:
        text += " at most (any split gives the same gradient)"
    if params.model.arch.startswith("RN"):
        text += "; batch normalization sees micro-batches, so they matter here"
    yield Finding(topic="batch", text=text, ok=train.batch_size >= processes)
    spec, labels = spec_or_none(params.data.dataset), list_file(params.data.dataset, "labels")
    videos = num_lines(list_file(params.data.dataset, "train"))
    if videos is None:
        videos = spec and spec.expected("train", params.data.split)
    if not videos:
        yield Finding(topic="steps", text="the number of training videos is not known yet", ok=None)
        return
    from clipzoo.train.plan import make_plan

    num_classes = spec.num_classes if spec else None
    if labels.is_file():
        num_classes = len(read_labels(labels))
    picked = (num_classes or 0) * params.data.shots  # 0 = all, or the classes are not known
    plan = make_plan(params, picked or videos, videos)
    text = (
        f"{videos} training videos, {plan.num_clips} clips an epoch, {plan.steps_per_epoch} steps "
        f"x {train.epochs} epochs = {plan.total_steps}"
    )
    yield Finding(topic="steps", text=text, ok=plan.num_clips > 0)


def _hours(recipe: Recipe, params: Params) -> str:
    if not params.train.epochs:
        return "none for training"
    if not recipe.gpu_hours:
        return "not known: there is no log of this or a similar run"
    source = "the authors' log" if recipe.authors.log else "the log of a similar recipe"
    return f"about {recipe.gpu_hours:g} of training on the authors' GPUs, according to {source}"


def _verdict(faults: Sequence[Finding]) -> str:
    """`ready`, or the first thing that is missing, in one line."""
    if not faults:
        return "ready"
    text = textwrap.shorten(
        f"{faults[0].topic}: {faults[0].text}", VERDICT_WIDTH, placeholder=" ..."
    )
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"not ready: {text}{more}"


def _run(arguments: argparse.Namespace) -> None:
    """Print one screen, which begins with the verdict; an error if something is missing."""
    name = arguments.recipe
    recipe, _ = load_recipe(name)
    findings = check_recipe(name, read_arguments(arguments, [name]))
    faults = [finding for finding in findings if finding.ok is False]
    print(f"check {name}: {_verdict(faults)}")
    print(f"{'':8}{recipe.about}")
    for finding in findings:
        text = shown(finding.text, kept="\n")
        print(f"{MARKS[finding.ok]:8}{finding.topic}: {text}")
    if load_params(PARAMS_FILE).recipe == name:
        print(leftovers(), end="")
    if faults:
        things = "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"
        raise ConfigError(f"{things} missing: {', '.join(fault.topic for fault in faults)}")
    words = option_words(arguments)
    zoo = shlex.join(["clipzoo", "zoo", name, *words])
    print(f"next: {zoo if words else f'make zoo RECIPES={shlex.quote(name)}'}")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "check",
        "show what a recipe's run needs and what is missing",
        (
            "check text4vis/k400-vitb16-f8",
            "check text4vis/k400-vitb16-f8 --released k400-vitb16-f8.pt",
        ),
    )
    command.add_argument("recipe", help="name of the recipe")
    add_options(command)
    command.set_defaults(run=_run)
