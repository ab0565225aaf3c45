"""Every group of files that a user or an interruption can damage, and what reads it.

The readers run in a folder that `prepare` has filled. Each gets the path of the file that may be
damaged, and returns what it read, or raises an error.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import official
import pyarrow as pa
import pytest
import torch
from pydantic import BaseModel
from torch import nn

from clipzoo import methods
from clipzoo.__main__ import make_parser
from clipzoo.annotations.joining import read_annotations
from clipzoo.clips.attributes import read_attributes, sentence_tokens
from clipzoo.clips.clips import ViewClips
from clipzoo.clips.selection import MeasuredSet
from clipzoo.clips.transforms import ViewTransform
from clipzoo.commands import predictions, use
from clipzoo.commands.missing import known_failures
from clipzoo.comparison import runs
from clipzoo.config import Params, load_params, replace
from clipzoo.data.index import index_path
from clipzoo.data.ledger import ledger_path, read_ledger, write_ledger
from clipzoo.data.records import Record, read_labels, read_list, read_missing
from clipzoo.data.spec import load_spec
from clipzoo.data.store import ShardStore
from clipzoo.evaluate import fusion, lexicon
from clipzoo.evaluate.predictions import read_splits
from clipzoo.frames.manifest import manifest_path, read_manifest
from clipzoo.models.clip import load_clip
from clipzoo.models.text import load_class_text
from clipzoo.models.weights import load_weights
from clipzoo.report import kept
from clipzoo.report.recipes import load_recipe
from clipzoo.report.results import make_rows, read_metrics
from clipzoo.report.verdicts import read_settings
from clipzoo.train.state import Progress, load_state, save_state

ARCH, DATASET, UNSEEN = "ViT-demo-16", "demo_shapes", "demo_unseen"
CPU = torch.device("cpu")
OFFICIAL = {
    "ucf101": official.ucf101,
    "hmdb51": official.hmdb51,
    "activitynet": official.activitynet,
    "charades": official.charades,
}
KINETICS = "annotated_kinetics"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Files of one kind."""

    kind: str
    """Of `damages.KINDS`."""
    files: tuple[str, ...]
    """Their paths; each is damaged in turn."""
    read: Callable[[Path], Any]
    free: str = ""
    """Why a damaged file may be read as something else; '' = it may not."""
    named: tuple[str, ...] = ()
    """What an error may name instead of the file: a key, or another file that it does not fit."""
    num: int = 44
    """Number of cases."""


NO_CHECKSUM = "text that people edit has no checksum: another valid value is taken"
"""`Group.free` of most text files."""


def digest(value: Any) -> str:
    """Of what a reader returned; equal values have equal digests."""
    return hashlib.sha256(repr(_plain(value)).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return _plain(value.state_dict())
    if isinstance(value, torch.Tensor):
        return list(value.shape), _plain(value.detach().contiguous().numpy())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, pa.Table):
        return value.to_pydict()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Mapping):
        return sorted((str(key), _plain(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


# Below: what the readers need, in the folder of the tests.


def prepare(demo: Path, folder: Path) -> None:
    """A copy of what the demo wrote, and files of every other group."""
    for name in ("data", "datasets", "lists", "metrics", "models", "plots", "predictions"):
        shutil.copytree(demo / name, folder / name, ignore=shutil.ignore_patterns("raw"))
    shutil.copytree(demo / "recipes", folder / "recipes")
    shutil.copy(demo / "params.yaml", folder)
    (folder / "data/raw").mkdir()
    shutil.copy(demo / manifest_path(DATASET), folder / "data/raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _write_annotations()
        _write_lists()
        _write_second_run()
        _write_checkpoints()
        _write_state()


def _write_annotations() -> None:
    for name, make in OFFICIAL.items():
        _write_dataset(f"annotated_{name}", name, make().files)
    kinetics = official.kinetics600(1)
    _write_dataset(KINETICS, "kinetics", kinetics.files, "evaluation_only: true\n")
    ids = [f"x{number:010d}" for number in range(40)]
    entries = {
        video_id: {"subset": "x", "annotations": {"label": f"c{i % 4}", "segment": [1.0, 9.5]}}
        for i, video_id in enumerate(ids)
    }
    as_json = {f"{part}.json": json.dumps(entries) for part in ("train", "val")}
    as_json["val.json"] = as_json["val.json"].replace("x00", "y00")
    _write_dataset("annotated_json", "kinetics", as_json)
    lines = [f"c{i % 4}/{video_id}.mp4 30 {i % 4}" for i, video_id in enumerate(ids)]
    labels = "id,name\n" + "".join(f"{i},c{i}\n" for i in range(4))
    text = "\n".join(lines) + "\n"
    files = {"train.txt": text, "val.txt": text.replace("x00", "y00"), "labels.csv": labels}
    _write_dataset("annotated_peers", "peer_lists", files)
    folders = "folder,name\n" + "".join(f"c{i},Class {i}\n" for i in range(4))
    _write_dataset("annotated_folder", "folder", {"classes.csv": folders})


def _write_dataset(name: str, form: str, files: Mapping[str, str], more: str = "") -> None:
    Path(f"datasets/{name}.yaml").write_text(
        f"about: a test\nformat: {form}\n{more}id_pattern: (?:v_)?(.+)\nval_fraction: 0.5\n"
    )
    for file, text in files.items():
        path = Path(f"data/annotations/{name}/{file}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _write_lists() -> None:
    """The lists that the demo has none of."""
    ids = [record.video_id for record in read_list(f"lists/{DATASET}/val.csv", 48)]
    write_ledger(DATASET, {video_id: "absent: a test" for video_id in ids[:5]})
    rows = "".join(f"{video_id},val,absent: a test\n" for video_id in ids[:5])
    Path(f"lists/{DATASET}/missing.csv").write_text(f"video_id,set,reason\n{rows}")
    rows = "".join(f"{video_id},{1 + i % 3}\n" for i, video_id in enumerate(ids))
    Path(f"lists/{DATASET}/splits.csv").write_text(f"video_id,split\n{rows}")
    rows = "".join(f"{video_id},broken: a test\n" for video_id in ids[:5])
    Path(f"data/frames/{DATASET}/missing.csv").write_text(f"video_id,reason\n{rows}")
    Path("words").mkdir()
    Path("words/lexicon.txt").write_text("".join(f"word {i}\n" for i in range(30)))
    entries = {
        video_id: {"classname_topk": [f"word {i}", "é"], "video_label_id": i % 4}
        for i, video_id in enumerate(ids)
    }
    Path("words/val.json").write_text(json.dumps(entries))


def _write_second_run() -> None:
    """A run to compare and to fuse with that of the demo."""
    for name in ("metrics", "plots"):
        shutil.copytree(f"{name}/demo", f"{name}/other")
    folder = kept.KEPT_PREDICTIONS_DIR / "demo"
    folder.mkdir(parents=True)
    for path in ("predictions/test.safetensors", "predictions/test.parquet"):
        shutil.copy(path, folder)
    shutil.copy("metrics/demo/test.json", folder)


class _Tower(nn.Module):
    """What a TorchScript archive of CLIP is made of: all its tensors, by their names."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            *modules, last = name.split(".")
            module: nn.Module = self
            for part in modules:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, value.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _write_checkpoints() -> None:
    Path("given").mkdir()
    towers, _ = load_clip()
    state = {name: value.clone() for name, value in towers.state_dict().items()}
    torch.save(state, "given/clip.pt")
    torch.save(state, "given/legacy.pt", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        script = torch.jit.script(_Tower(state))  # pyright: ignore[reportPrivateImportUsage]
        torch.jit.save(script, "given/script.pt")  # pyright: ignore[reportPrivateImportUsage]
    trained = methods.load_model(load_params()).state_dict()
    content = {"epoch": 3, "model_state_dict": {k: v.half() for k, v in trained.items()}}
    torch.save(content, "given/released.pt")
    scores = torch.linspace(0, 1, 48 * 12).view(48, 12).softmax(dim=1)
    for name in ("video", "attributes"):
        torch.save(scores, f"given/{name}.pt")
    torch.save(torch.arange(48) % 12, "given/labels.pt")


def _training(steps: int) -> tuple[Any, ...]:
    """A model, its optimizer and its scaler after some steps."""
    torch.manual_seed(0)
    model = nn.Linear(40, 40)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.ones(1, 40)).sum().backward()
        optimizer.step()
    return model, optimizer, torch.amp.GradScaler("cpu", enabled=False)  # pyright: ignore[reportPrivateImportUsage]


def _write_state() -> None:
    for steps in (1, 2):
        save_state(Path("state"), Progress(step=steps), *_training(steps))


# Below: the readers.


def _command(*words: str) -> None:
    """A command of `clipzoo`, which raises its errors here."""
    arguments = make_parser().parse_args(words)
    arguments.run(arguments)


def _read_params(path: Path) -> Any:
    params = load_params()
    options = methods.read_options(params)
    use.leftovers()
    content = path.read_bytes()
    use.use("demo")
    path.write_bytes(content)
    return params, options


def _read_recipe(path: Path) -> Any:
    recipe, params = load_recipe("demo/bike-attributes")
    return recipe, params, methods.read_options(params, path)


def _read_spec(path: Path) -> Any:
    spec = load_spec(path.stem)
    spec.expected("train", 1)
    return spec, spec.video_id("a/v_x_000001_000011"), spec.frame_name("a/b", 3), spec.total(1)


def _params_of(dataset: str) -> Params:
    values = {"dataset": dataset, "datasets": [dataset], "demo": [], "zero_shot": []}
    return replace(load_params(), {f"data.{key}": value for key, value in values.items()})


def _read_annotations(dataset: str, path: Path) -> Any:
    ids = [f"c{i % 4}/x{i:010d}" for i in range(40)] if dataset == "annotated_folder" else []
    return read_annotations(_params_of(dataset), dataset, load_spec(dataset), ids)


def _read_frames(path: Path) -> Any:
    store = ShardStore(index_path(DATASET))
    records = [Record(video_id, info.num_frames, 0) for video_id, info in store.videos.items()]
    chosen = [store.videos[r.video_id].row for r in records[:3] + records[-3:]]
    views = ViewClips(store, records, ViewTransform(32, 36, 1), 4, 1, False)
    return store.videos, [views.load(position) for position in chosen]


def _read_model(path: Path) -> Any:
    model = methods.load_model(load_params(), path)
    return model, methods.read_model_metadata(path)


def _read_weights(path: Path) -> Any:
    return load_weights(ARCH, str(path), 32, "quickgelu", say=lambda text: None)


def _read_released(path: Path) -> Any:
    params = replace(load_params(), {"model.checkpoint": str(path), "train.epochs": 0})
    return methods.new_model(params)[0]  # its metadata have the digest of the file


def _read_state(path: Path) -> Any:
    model, optimizer, scaler = _training(0)
    progress = load_state(path.parent, model, optimizer, scaler, CPU)
    assert digest(model) == digest(_training(progress.step)[0])


def _read_scores(path: Path) -> Any:
    files = [kept.KEPT_PREDICTIONS_DIR / "demo", Path("predictions")]
    first, second = (fusion.read_scores(folder / "test.safetensors") for folder in files)
    labels = fusion.same_labels(first, second)
    fusion.describe(first, second, "demo")
    fusion.compare(first, second, labels, 0.5)
    _command("fuse", *(str(folder / "test.safetensors") for folder in files))
    return first, second, labels


def _fuse_given(path: Path) -> Any:
    _command("fuse", "given/video.pt", "given/attributes.pt", "--labels", "given/labels.pt")
    return fusion.read_tensor(path)


def _read_table(path: Path) -> Any:
    predictions.describe(path, wrong=True, top=0)
    _command("predictions", "test", "--wrong")
    return fusion.read_scores(path.with_suffix(".safetensors"))


def _read_results(path: Path) -> Any:
    """report, compare, and what a fusion reads of the metrics of its video branch."""
    recipes = {name: load_recipe(name) for name in ("demo",)}
    loaded = {name: (recipe, params.settings()) for name, (recipe, params) in recipes.items()}
    rows = make_rows(read_metrics(), loaded)
    _command("compare", "demo", "other")
    return rows, [runs.read_run(name) for name in ("demo", "other")]


def _read_settings(path: Path) -> Any:
    settings = read_settings(Path(), "demo", "test")
    if settings is None:
        raise ValueError(f"{path}: no settings: such a run has no verdict and is run again")
    return settings


def _read_kept(path: Path) -> Any:
    _, about = fusion.read_kept("demo")
    return fusion.add_video_branch({"environment": "here"}, about)


def _read_attributes(path: Path) -> Any:
    records = read_list(f"lists/{DATASET}/val.csv", 48)
    tokens = sentence_tokens(records, path, ", ".join, ARCH, 12)
    return read_attributes(path), tokens, lexicon.read_published(str(path), records, DATASET)


def _read_splits(path: Path) -> Any:
    records = read_list(f"lists/{DATASET}/val.csv", 48)
    found = MeasuredSet(dataset=DATASET, records=records, lists=["val"], num_listed=len(records))
    return read_splits(found)


def _read_failures(path: Path) -> Any:
    ids = [video.video_id for video in read_manifest(manifest_path(DATASET))]
    return known_failures(DATASET, ids, {})


def _annotations(name: str, *files: str, kind: str = "text", num: int = 44) -> Group:
    folder = f"data/annotations/annotated_{name}"
    return Group(
        kind=kind,
        files=tuple(f"{folder}/{file}" for file in files),
        read=partial(_read_annotations, f"annotated_{name}"),
        free=NO_CHECKSUM,
        named=(folder,),
        num=num,
    )


_HMDB = "testTrainMulti_7030_splits/brush_hair_test_split1.txt"
GROUPS: dict[str, Group] = {
    "params": Group(
        kind="yaml", files=("params.yaml",), read=_read_params, free=NO_CHECKSUM, num=40
    ),
    "recipe": Group(
        kind="yaml",
        files=("recipes/demo/bike-attributes.yaml", "recipes/demo.yaml"),
        read=_read_recipe,
        free=NO_CHECKSUM,
        named=("recipes/demo/bike-attributes.yaml", "unknown recipe 'demo/bike-attributes'"),
        num=50,
    ),
    "dataset": Group(
        kind="yaml", files=(f"datasets/{KINETICS}.yaml",), read=_read_spec, free=NO_CHECKSUM, num=80
    ),
    "ucf101": _annotations("ucf101", "classInd.txt", "trainlist01.txt", "testlist01.txt"),
    "hmdb51": _annotations("hmdb51", _HMDB, _HMDB.replace("split1", "split2")),
    "activitynet": _annotations("activitynet", "activity_net.v1-3.min.json", kind="json", num=60),
    "kinetics-csv": _annotations("kinetics", "test.csv", kind="csv"),
    "kinetics-json": _annotations("json", "train.json", "val.json", kind="json", num=60),
    "charades": _annotations("charades", "Charades_v1_classes.txt"),
    "charades-csv": _annotations(
        "charades", "Charades_v1_train.csv", "Charades_v1_test.csv", kind="csv"
    ),
    "peer-lists": _annotations("peers", "train.txt", "val.txt", kind="csv"),
    "class-names": _annotations("peers", "labels.csv", kind="csv"),
    "classes-of-folders": _annotations("folder", "classes.csv", kind="csv"),
    "manifest": Group(
        kind="csv",
        files=(str(manifest_path(DATASET)),),
        read=read_manifest,
        free=NO_CHECKSUM,
    ),
    "ledger": Group(
        kind="csv",
        files=(str(ledger_path(DATASET)),),
        read=lambda path: read_ledger(DATASET),
        free=NO_CHECKSUM,
    ),
    "failures": Group(
        kind="csv",
        files=(f"data/frames/{DATASET}/missing.csv",),
        read=_read_failures,
        free=NO_CHECKSUM,
    ),
    "index": Group(
        kind="parquet",
        files=(str(index_path(DATASET)), f"data/frames/{DATASET}/jpegs.npy"),
        read=_read_frames,
        named=(f"data/frames/{DATASET}/shard-",),
    ),
    "shards": Group(
        kind="binary",
        files=(f"data/frames/{DATASET}/shard-00000.tar",),
        read=_read_frames,
        free="a flipped bit within the picture data of a JPEG is found by DVC alone",
        named=("a frame cannot be decoded",),
    ),
    "list": Group(
        kind="csv",
        files=(f"lists/{DATASET}/val.csv",),
        read=lambda path: read_list(path, 48),
        free=NO_CHECKSUM,
    ),
    "list-of-splits": Group(
        kind="csv",
        files=(f"lists/{DATASET}/splits.csv",),
        read=_read_splits,
        free=NO_CHECKSUM,
    ),
    "list-of-missing": Group(
        kind="csv",
        files=(f"lists/{DATASET}/missing.csv",),
        read=lambda path: read_missing(DATASET),
        free=NO_CHECKSUM,
    ),
    "labels": Group(
        kind="csv", files=(f"lists/{DATASET}/labels.csv",), read=read_labels, free=NO_CHECKSUM
    ),
    "class-text": Group(
        kind="safetensors",
        files=(f"data/text/{DATASET}.safetensors",),
        read=lambda path: load_class_text(DATASET),
        num=60,
    ),
    "clip": Group(kind="safetensors", files=("models/clip.safetensors",), read=load_clip, num=40),
    "model": Group(
        kind="safetensors", files=("models/model.safetensors",), read=_read_model, num=40
    ),
    "classifier": Group(
        kind="safetensors",
        files=("models/classifier.safetensors",),
        read=lambda path: methods.load_classifier(48),
        num=60,
    ),
    "weights": Group(kind="checkpoint", files=("given/clip.pt",), read=_read_weights, num=34),
    "old-weights": Group(
        kind="checkpoint",
        files=("given/legacy.pt",),
        read=_read_weights,
        free="PyTorch's format before 1.6 has no checksum",
        num=30,
    ),
    "torchscript": Group(
        kind="torchscript", files=("given/script.pt",), read=_read_weights, num=30
    ),
    "released": Group(kind="checkpoint", files=("given/released.pt",), read=_read_released, num=34),
    "given-scores": Group(
        kind="checkpoint",
        files=("given/video.pt", "given/attributes.pt", "given/labels.pt"),
        read=_fuse_given,
        num=84,
    ),
    "training-state": Group(
        kind="checkpoint",
        files=("state/state.pt", "state/previous.pt"),
        read=_read_state,
        free="a damaged state gives way to the one before; the reader compares",
        num=44,
    ),
    "predictions": Group(
        kind="safetensors",
        files=(
            "predictions/test.safetensors",
            f"{kept.KEPT_PREDICTIONS_DIR}/demo/test.safetensors",
        ),
        read=_read_scores,
        num=52,
    ),
    "predicted-videos": Group(
        kind="parquet",
        files=("predictions/test.parquet",),
        read=_read_table,
        num=44,
    ),
    "metrics": Group(
        kind="json",
        files=(
            "metrics/demo/test.json",
            f"metrics/demo/zero_shot_{UNSEEN}.json",
            "metrics/demo/train.json",
            "metrics/clip.json",
        ),
        read=_read_results,
        free=NO_CHECKSUM,
        num=60,
    ),
    "kept-metrics": Group(
        kind="json",
        files=(f"{kept.KEPT_PREDICTIONS_DIR}/demo/test.json",),
        read=_read_kept,
        free=NO_CHECKSUM,
    ),
    "settings": Group(
        kind="json", files=("plots/demo/test/settings.json",), read=_read_settings, num=44
    ),
    "compared-settings": Group(
        kind="json",
        files=("plots/demo/test/settings.json",),
        read=_read_results,
        free="without its settings a run has no verdict, which the report says",
        num=20,
    ),
    "compared-videos": Group(
        kind="csv",
        files=("plots/demo/test/videos.csv", f"plots/demo/zero_shot_{UNSEEN}/videos.csv"),
        read=_read_results,
        free=NO_CHECKSUM,
        num=44,
    ),
    "lexicon": Group(
        kind="text",
        files=("words/lexicon.txt",),
        read=lambda path: lexicon.read_lexicon(str(path), DATASET),
        free=NO_CHECKSUM,
    ),
    "attributes": Group(
        kind="json", files=("words/val.json",), read=_read_attributes, free=NO_CHECKSUM, num=50
    ),
}
"""By name; the order is that of the pipeline."""
