"""Time and memory of every step that reads no pixels, at the size of Kinetics-400.

    python benchmarks/scale.py [--videos N]

Makes a dataset without pixels in a temporary folder, with a quarter, a half and all of N videos:
tiny raw files, annotation files, 300 frames a video, sparse shards of the right size, and random
features of the validation videos. Each step runs in a process of its own, so that its peak is
its own; seconds (of processor time in brackets) are without imports, megabytes with them. The three
sizes take about ten minutes, the largest 4 GB of disk.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from workspace import ROOT

DATASET, RECIPE = "kinetics400", "text4vis/k400-vitb32-f8"
NUM_FRAMES = 300
VAL_EVERY = 13
"""Every 13th video of a class is for validation: 20,000 of 260,000."""
DIM, NUM_VIEWS = 512, 12
NUM_READS = int(os.environ.get("NUM_READS", 20_000))
LINKED = Path("data/frames/linked")
RAW_PATH = "{label}/{name}_000010_000020.mp4"
LIMITS = "limits: 60 s and 2,000 MB a step; 30 s for dvc repro"

Job = Callable[[], object]
"""The timed part of a step; its result is kept until memory has been read."""


def make_project() -> Job:
    """A clone of this repository with the recipe in use, and raw files and annotations."""
    from clipzoo.commands.use import use
    from clipzoo.data.records import read_labels

    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run([*command, "--exclude-standard"], check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, name)
    use(RECIPE)
    labels = read_labels(f"src/clipzoo/reference/labels/{DATASET}.csv")
    num_videos = int(os.environ["NUM_VIDEOS"])

    def make() -> None:
        root = Path(os.environ["CLIPZOO_DATA"]) / DATASET
        for label in labels:
            (root / label).mkdir(parents=True)
        folder = Path("data/annotations") / DATASET
        folder.mkdir(parents=True)
        with (folder / "train.csv").open("w") as train, (folder / "val.csv").open("w") as val:
            for file in (train, val):
                file.write("label,youtube_id,time_start,time_end,split\n")
            for i in range(num_videos):
                label, name = labels[i % len(labels)], f"video{i:06d}"
                (root / RAW_PATH.format(label=label, name=name)).write_bytes(bytes(i % 100 + 1))
                split, file = ("train", train) if i // len(labels) % VAL_EVERY else ("val", val)
                file.write(f"{label},{name},10,20,{split}\n")

    return make


def scan_videos() -> Job:
    """`clipzoo scan`."""
    from clipzoo.commands.scan import scan

    return lambda: scan(DATASET, Path(os.environ["CLIPZOO_DATA"]) / DATASET)


def make_parts() -> Job:
    """What extraction workers would write: sparse tars, and parts of the index."""
    import pyarrow as pa

    from clipzoo.config import load_params
    from clipzoo.data.index import PART_COLUMNS, ShardState, write_index
    from clipzoo.frames.plan import plan_shards

    def make() -> None:
        rng = np.random.default_rng(0)
        for job in plan_shards(load_params(), DATASET):
            num_videos = len(job.videos)
            sizes = rng.integers(8_000, 21_000, num_videos * NUM_FRAMES)
            spans = 512 * (1 + -(-sizes // 512))  # a header and whole blocks
            offsets = np.cumsum(spans) - spans + 512
            starts = np.arange(num_videos + 1, dtype=np.int32) * NUM_FRAMES
            columns = {
                "video_id": [video.video_id for video in job.videos],
                "path": [video.path for video in job.videos],
                "source_size": [video.size for video in job.videos],
                "shard": np.full(num_videos, job.shard),
                "num_frames": np.full(num_videos, NUM_FRAMES),
                "width": np.full(num_videos, 426),
                "height": np.full(num_videos, 320),
                "fps": np.full(num_videos, 30.0),
                "decord_fault": [""] * num_videos,
                "start_seconds": np.zeros(num_videos),
                "uneven_seconds": np.zeros(num_videos),
                "offsets": pa.ListArray.from_arrays(starts, offsets),
                "sizes": pa.ListArray.from_arrays(starts, sizes.astype(np.int32)),
            }
            table = pa.table(columns).cast(pa.schema(list(PART_COLUMNS.items())))
            job.directory.mkdir(parents=True, exist_ok=True)
            job.tar_path.touch()
            os.truncate(job.tar_path, int(spans.sum()) + 1024)
            state = ShardState(
                job.fingerprint(), job.tar_path.stat().st_size, num_videos * NUM_FRAMES
            )
            write_index(table, {job.shard: state}, job.part_path)

    return make


def extract_frames() -> Job:
    """extract_frames with all shards finished: at first it merges their parts."""
    from clipzoo.config import load_params
    from clipzoo.frames.extraction import extract

    return lambda: extract(load_params(), DATASET)


def open_frames() -> Job:
    """`open_store`, as every process of train, test and zero_shot does."""
    from clipzoo.config import load_params
    from clipzoo.data.store import open_store

    params = load_params()
    return lambda: open_store(params, DATASET)


def read_clips() -> Job:
    """NUM_READS reads of 8 frames from random videos (zeros: the shards are sparse)."""
    from clipzoo.config import load_params
    from clipzoo.data.index import FRAMES_DIR, member_name, shard_name
    from clipzoo.data.store import ShardStore, open_store

    store, rng = open_store(load_params(), DATASET), np.random.default_rng(0)
    assert isinstance(store, ShardStore)
    ids = [list(store.videos)[i] for i in rng.integers(len(store.videos), size=NUM_READS)]
    frames = np.sort(rng.integers(NUM_FRAMES, size=(NUM_READS, 8)))
    for video_id, indices in zip(ids, frames.tolist(), strict=True):
        row = store.videos[video_id].row
        with (FRAMES_DIR / DATASET / shard_name(store._shards[row])).open("r+b") as shard:
            for i in indices:  # the headers of these frames, which the store compares
                member = tarfile.TarInfo(member_name(video_id, i + 1))
                block, member.size = store._jpegs[store._starts[row] + i].tolist()
                shard.seek((block - 1) * tarfile.BLOCKSIZE)
                shard.write(member.tobuf())

    def read() -> None:
        for video_id, indices in zip(ids, frames, strict=True):
            store.read(video_id, indices)

    return read


def build_all_lists() -> Job:
    """build_lists."""
    from clipzoo.annotations.joining import build_lists
    from clipzoo.config import load_params

    return lambda: build_lists(load_params(), DATASET)


def plan_training() -> Job:
    """What train does before its first step: lists, store, checks, the clips of an epoch."""
    from clipzoo.clips.clips import TrainClips
    from clipzoo.clips.selection import training_records
    from clipzoo.clips.transforms import TrainTransform
    from clipzoo.config import load_params
    from clipzoo.data.records import videos_sha256
    from clipzoo.data.store import open_store
    from clipzoo.train.plan import make_plan

    params = load_params()

    def plan() -> object:
        records = training_records(params)
        videos_sha256(record.video_id for record in records.selected)
        transform = TrainTransform(params.model.input_px, params.augment)
        store = open_store(params, DATASET)
        clips = TrainClips(store, records.selected, transform, 8, params.seed)
        return clips, make_plan(params, len(records.selected), records.num_all).step_positions(0)

    return plan


def measure_test() -> Job:
    """test after encoding: metrics, intervals, predictions and plots of 12 views."""
    import torch

    from clipzoo.clips.selection import MeasuredSet
    from clipzoo.config import load_params
    from clipzoo.data.records import read_list
    from clipzoo.data.targets import label_tensor
    from clipzoo.evaluate import predictions
    from clipzoo.evaluate.plots import plot_test
    from clipzoo.evaluate.protocols import evaluate_test
    from clipzoo.files import write_metrics

    params, model, text = load_params(), raw_method(), random_text()
    records = read_list(f"lists/{DATASET}/val.csv", text.num_classes)
    labels = label_tensor(records, text.num_classes)
    views = [f"clip{clip}-{crop}" for clip in range(4) for crop in ("left", "right", "center")]
    features = torch.randn(len(records), NUM_VIEWS, DIM)
    features += 0.5 * text.class_embeddings[0][labels][:, None]

    def test() -> None:
        measured = evaluate_test(
            scored(model, features, text, labels, views),
            trained_classes=range(text.num_classes),
            dense=False,
        )
        about = predictions.describe_set(
            MeasuredSet(dataset=DATASET, records=records, lists=["val"], num_listed=len(records)),
            "12",
        )
        probabilities = measured.probabilities
        tensors = {"features": features, "probabilities": probabilities, "labels": labels}
        predictions.save("test", tensors, records, views, text.class_names, about)
        write_metrics(f"metrics/{params.recipe}/test.json", {**about, **measured.values})
        plot_test(f"plots/{params.recipe}/test", probabilities, labels, text.class_names)

    return test


def measure_zero_shot() -> Job:
    """zero_shot after encoding: both models, all classes and halves of them, one view."""
    import torch

    from clipzoo.data.records import read_list
    from clipzoo.data.targets import label_tensor
    from clipzoo.evaluate import predictions
    from clipzoo.evaluate.protocols import compare_zero_shot, evaluate_zero_shot

    model, text = raw_method(), random_text()
    records = read_list(f"lists/{DATASET}/val.csv", text.num_classes)
    labels = label_tensor(records, text.num_classes)
    names, views = text.class_names, ["clip0-center"]
    models = [
        scored(model, torch.randn(len(records), 1, DIM), text, labels, views) for _ in range(2)
    ]

    def test() -> None:
        tuned, raw = (evaluate_zero_shot(part, protocols=["full", "half"]) for part in models)
        compare_zero_shot(tuned, raw)
        tensors = {"labels": labels}
        for prefix, measured in (("", tuned), ("raw_", raw)):
            tensors[f"{prefix}features"] = measured.scored.features
            tensors[f"{prefix}probabilities"] = measured.probabilities
        predictions.save("zero_shot", tensors, records, views, names, {})

    return test


def raw_method():
    """A method that scores features; it has no towers."""
    import torch

    from clipzoo.methods.parts.raw import FrameMean

    clip = torch.nn.Module()
    clip.visual = torch.nn.Identity()
    return FrameMean(clip)


def scored(model, features, text, labels, views):
    """What a method's features score."""
    from functools import partial

    from clipzoo.evaluate.scoring import Scored, score_videos

    return Scored(
        score=partial(score_videos, model),
        features=features,
        view_names=views,
        labels=labels,
        text=text,
    )


def random_text():
    """Random class embeddings of the dataset's classes."""
    import torch

    from clipzoo.data.records import read_labels
    from clipzoo.models.text import ClassText

    names = read_labels(f"lists/{DATASET}/labels.csv")
    embeddings = torch.nn.functional.normalize(torch.randn(1, len(names), DIM), dim=-1)
    tokens = torch.zeros(1, len(names), 77, dtype=torch.int64)
    return ClassText(token_ids=tokens, class_embeddings=embeddings, class_names=names)


def report_results() -> Job:
    """report, over the metrics and recipes of this repository."""
    from clipzoo.report.tables import write_report

    return write_report


def commit_outputs() -> Job:
    """What a finished run would leave to DVC and git; stand-ins for outputs that no step made."""
    dvc = str(Path(sys.executable).parent / "dvc")
    shutil.rmtree(LINKED)
    for shard in Path("data/frames", DATASET).glob("*.tar"):
        os.truncate(shard, 4096)  # DVC hashes what it commits, later it compares times and sizes
    files = ("models/clip", "models/model", "models/classifier", f"data/text/{DATASET}")
    for path in [Path(f"{name}.safetensors") for name in files]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    Path("predictions/interpolation.csv").write_text("alpha\n")
    Path("plots", RECIPE, "train").mkdir(parents=True)
    Path("plots", RECIPE, "train", "metrics.json").write_text("{}")
    Path("metrics", RECIPE, "train.json").write_text("{}")
    Path("report/site").mkdir(parents=True)
    Path("report/index.html").touch()
    Path("dvc.lock").unlink(missing_ok=True)
    name = ["-c", "user.name=x", "-c", "user.email=x"]

    def commit() -> None:
        for command in (
            [sys.executable, "stages/check_names.py"],
            ["git", "init", "--quiet"],
            [dvc, "commit", "--force"],
            ["git", "add", "--all"],
            ["git", *name, "commit", "--quiet", "--message", "x"],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return commit


def reproduce() -> Job:
    """A `dvc repro` with nothing to do."""
    dvc = str(Path(sys.executable).parent / "dvc")

    def repro() -> None:
        run = subprocess.run([dvc, "repro"], check=True, text=True, stdout=subprocess.PIPE)
        assert f"'extract_frames@{DATASET}' didn't change" in run.stdout, run.stdout
        assert "Running" not in run.stdout, run.stdout

    return repro


def split_one() -> Job:
    """What extraction does first when one shard is missing, on links to the same files."""
    from clipzoo.config import load_params
    from clipzoo.frames.parts import split_index
    from clipzoo.frames.plan import plan_shards

    shutil.copytree(f"data/frames/{DATASET}", LINKED, copy_function=os.link)
    jobs = [replace(job, directory=LINKED) for job in plan_shards(load_params(), DATASET)]
    jobs[len(jobs) // 2].tar_path.unlink()
    return lambda: split_index(LINKED.name, jobs)


def drop_one() -> Job:
    """extract_frames after a video has left the manifest: no shard is made."""
    from clipzoo.config import load_params
    from clipzoo.frames.extraction import extract
    from clipzoo.frames.manifest import manifest_path, read_manifest, write_manifest

    videos = read_manifest(manifest_path(DATASET))
    write_manifest(videos[: len(videos) // 2] + videos[len(videos) // 2 + 1 :], Path("less.csv"))
    Path("less.csv").replace(manifest_path(DATASET))
    return lambda: extract(load_params(), DATASET)


STEPS: dict[str, Callable[[], Job]] = {
    "make the project": make_project,
    "scan": scan_videos,
    "make the parts": make_parts,
    "extract: merge the parts": extract_frames,
    "extract: nothing to do": extract_frames,
    "open_store": open_frames,
    f"read {NUM_READS:,} clips": read_clips,
    "build_lists": build_all_lists,
    "train: plan an epoch": plan_training,
    "test, encoded": measure_test,
    "zero_shot, encoded": measure_zero_shot,
    "report": report_results,
    "extract: split, one shard invalid": split_one,
    "extract: one video less": drop_one,
    "commit the outputs": commit_outputs,
    "dvc repro: nothing to do": reproduce,
}
USERS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
NOT_MEASURED = ("make the project", "make the parts", "commit the outputs")


def run_step(name: str) -> None:
    """Run one step in this process; print its seconds and megabytes as JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        job = STEPS[name]()
        before, cpu_began, began = _private_mb(), _cpu_seconds(), time.perf_counter()
        kept = job()
        seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds() - cpu_began
        kept_mb = _private_mb() - before
        del kept
    peak_mb = max(resource.getrusage(user).ru_maxrss for user in USERS) / 1e3
    values = {"seconds": seconds, "cpu": cpu_seconds, "peak_mb": peak_mb, "kept_mb": kept_mb}
    print(json.dumps(values))


def _cpu_seconds() -> float:
    """Processor time of this process and its children, which a busy machine does not change."""
    usage = [resource.getrusage(user) for user in USERS]
    return sum(part.ru_utime + part.ru_stime for part in usage)


def _private_mb() -> float:
    """Memory of this process that it shares with no other (pages of mapped files are shared)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def run_all(num_videos: int) -> dict[str, dict[str, float]]:
    """Every step at one size: {step: {seconds, cpu, peak_mb, kept_mb}}."""
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "project").mkdir()
        environment = {
            **os.environ,
            "NUM_VIDEOS": str(num_videos),
            "CLIPZOO_DATA": str(folder / "videos"),
            "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        for step in STEPS:
            command = [sys.executable, str(Path(__file__).resolve()), "--step", step]
            output = subprocess.run(
                command, cwd=folder / "project", env=environment, stdout=subprocess.PIPE, check=True
            ).stdout
            results[step] = values = json.loads(output)
            print(
                f"{num_videos} videos, {step}: {values['seconds']:.1f} s ({values['cpu']:.1f} s of "
                f"CPU), {values['peak_mb']:.0f} MB, {values['kept_mb']:.0f} MB kept",
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=260_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(arguments.step)
        return
    sizes = [arguments.videos // 4, arguments.videos // 2, arguments.videos]
    results = [run_all(size) for size in sizes]
    print(f"\n| step | {' | '.join(f'{size} videos' for size in sizes)} | kept |")
    print("|---|" + "---:|" * (len(sizes) + 1))
    for step in STEPS:
        if step not in NOT_MEASURED:
            cells = [
                f"{r[step]['seconds']:.1f} s ({r[step]['cpu']:.1f}), {r[step]['peak_mb']:.0f} MB"
                for r in results
            ]
            print(f"| {step} | {' | '.join(cells)} | {results[-1][step]['kept_mb']:.0f} MB |")
    print(LIMITS)


if __name__ == "__main__":
    main()
