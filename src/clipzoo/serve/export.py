"""A model as a graph that runs without this package: ONNX, or a program of torch.export.

    frames [batch, T, 3, S, S] uint8  ---.
    class_embeddings [P, classes, D]  ---+-->  probabilities, cosines [batch, classes]
    token_embeddings [classes, L, D]  ---'     embedding [batch, D]

The graph takes any number of videos and of classes; P, T and S are the model's. Normalization is
part of it, decoding and resizing are not. The text of the classes is written beside it, so that
nothing but NumPy and a runtime is needed to classify a video.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from clipzoo.config import ConfigError
from clipzoo.files import is_of_memory, named_disk_errors
from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText
from clipzoo.serve.classifier import Classifier
from clipzoo.serve.export_formats import (
    ONNX,
    OUTPUTS,
    PT2,
    WRITERS,
    Inputs,
    Runner,
    ignores_words,
    make_program,
)
from clipzoo.serve.model import VideoModel

FORMAT = 1
TEXT = ".npz"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
BATCHES = (1, 3)
"""Numbers of videos with which a graph is compared with the model."""
TOLERANCE = 1e-4
"""Largest difference between what the graph and the model give."""


class ExportError(ValueError):
    """A model cannot be written as a graph, or the graph gives other values than the model."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    files: list[Path]
    """The graph, then the class text, then a large graph's weights."""
    difference: float
    """The largest difference between the outputs of the graph and of the model."""
    about: dict[str, Any]
    """The metadata of the graph."""


def export_model(
    model: VideoModel,
    out: str | Path,
    class_names: Sequence[str] | None = None,
    zero_shot: bool | None = None,
) -> Exported:
    """Write a model as a graph, and the text of its classes as an npz file beside it.

    Both are written only after the graph was run and gave what the model gives.

    Args:
        model: on the CPU.
        out: the file, .onnx or .pt2.
        class_names, zero_shot: as for `VideoModel.predict`; which classes have their text written,
            and which model is exported.

    Raises:
        ConfigError: as `VideoModel.predict`, `out` has another ending, or a package is missing.
        ExportError: torch cannot export the model, or the graph gives other values.
        DiskError: the disk is full.
    """
    out = Path(out)
    check_output(out)
    method, text = model.method_and_text(class_names, zero_shot)
    other = class_names is not None if zero_shot is None else zero_shot
    about = {"zero_shot": other, **_describe(model, method, text)}
    out.parent.mkdir(parents=True, exist_ok=True)
    classifier = Classifier(method).eval()
    with _named_export_errors(about):
        program = make_program(classifier, _inputs(about, text, 2, classes=3))
        if ignores_words(program):  # as the zero-shot path of a method that needs them
            text = replace(text, token_embeddings=None)
            program = make_program(classifier, _inputs(about, text, 2, classes=3))
    with named_disk_errors(out), TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as part:
        graph = Path(part) / out.name
        with _named_export_errors(about):
            run = WRITERS[out.suffix](program, graph, about)
            difference = _largest_difference(classifier, run, about, text)
        if not difference <= TOLERANCE:  # nor if it is not a number
            raise ExportError(
                f"{out}: not written, because its outputs differ from the model's by up to "
                f"{difference:.2g}; allowed: {TOLERANCE:.2g}"
            )
        _write_text(text, graph.with_suffix(TEXT))
        first = [graph, graph.with_suffix(TEXT)]
        files = [*first, *sorted(set(Path(part).iterdir()) - set(first))]
        for path in files[::-1]:  # the graph last, when all that it needs is there
            path.replace(out.parent / path.name)
    written = [out.parent / path.name for path in files]
    return Exported(files=written, difference=difference, about=about)


def check_output(out: Path) -> None:
    """Raise ConfigError unless a graph can be written to a file of this name, before any work."""
    if out.suffix not in WRITERS or out.is_dir():
        kind = "a folder" if out.is_dir() else f"the ending {out.suffix!r}"
        raise ConfigError(f"{out}: found {kind}; allowed: OUT{ONNX} or OUT{PT2}")
    if (parent := next(p for p in out.parents if p.exists())) and not parent.is_dir():
        raise ConfigError(f"{out}: {parent} is a file; allowed: a file in a folder")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if out.suffix == ONNX and missing:
        raise ConfigError(
            f"{out}: needs the packages {', '.join(PACKAGES)}, and {', '.join(missing)} cannot be "
            "found; install them with this project's extra clipzoo[onnx] (`pip install --editable "
            f"'.[onnx]'` in its folder), or write OUT{PT2}, which needs torch alone"
        )


def _describe(model: VideoModel, method: Method, text: ClassText) -> dict[str, Any]:
    """The metadata of a graph: all that a program that uses it has to know."""
    about, test, pixels = model.config, model.config.views, method.pixels
    return {
        "format": FORMAT,
        "version": about.version,
        "torch": version("torch"),
        "recipe": about.recipe,
        "method": about.method,
        "options": about.options,
        "arch": about.clip.arch,
        "weights_sha256": about.weights_sha256,
        "class_names": text.class_names,
        "templates": about.templates,
        "num_segments": about.num_segments,
        "sampler": method.test_sampling,
        "clips": test.clips,
        "crops": test.crops,
        "dense": test.dense,
        "preprocessing": {
            "frames": about.frames.model_dump(exclude_none=True),
            "short_side_px": test.short_side_px,
            "crop_px": about.clip.input_px,
            "resize": pixels.resize,
            "interpolation": pixels.interpolation,
            "mean": list(pixels.mean),
            "std": list(pixels.std),
            "normalization": "in the graph",
        },
    }


def _inputs(about: dict[str, Any], text: ClassText, batch: int, classes: int) -> Inputs:
    """Random frames of `batch` videos, and the text of as many classes, some of them repeated."""
    size, segments = about["preprocessing"]["crop_px"], about["num_segments"]
    shape = (batch, segments, 3, size, size)
    generator = torch.Generator().manual_seed(batch)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    some = text.of_classes([k % text.num_classes for k in range(classes)])
    tokens = [] if some.token_embeddings is None else [some.token_embeddings]
    return frames, some.class_embeddings, *tokens


def _largest_difference(
    classifier: Classifier, run: Runner, about: dict[str, Any], text: ClassText
) -> float:
    """The largest absolute difference of all outputs, with the own classes and with one more."""
    largest = []
    for i, batch in enumerate(BATCHES):
        inputs = _inputs(about, text, batch, text.num_classes + i)
        with torch.no_grad():
            expected, found = classifier(*inputs), run(inputs)
        largest += [(found[name] - expected[name]).abs().max() for name in OUTPUTS]
    return float(torch.stack(largest).max())  # not a number if any is not


def _write_text(text: ClassText, path: Path) -> None:
    """The names and the embeddings of the classes as an npz file, without pickled objects."""
    arrays: dict[str, Any] = {"class_names": np.array(text.class_names)}
    arrays["class_embeddings"] = text.class_embeddings.numpy()  # [P, K, D]
    if text.token_embeddings is not None:
        arrays["token_embeddings"] = text.token_embeddings.numpy()  # [K, L, D]
    with path.open("wb") as file:
        np.savez(file, **arrays)


@contextmanager
def _named_export_errors(about: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of torch, onnxscript or onnxruntime
        if isinstance(error, MemoryError) or is_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"torch {about['torch']} cannot export {about['method']} with {about['arch']} as a "
            f"graph ({type(error).__name__}: {reason})"
        ) from error
