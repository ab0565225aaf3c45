"""The two forms of a graph: an ONNX file, or a program of torch.export; each with its metadata."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

ONNX, PT2 = ".onnx", ".pt2"
INPUTS = ("frames", "class_embeddings", "token_embeddings")
OUTPUTS = ("probabilities", "cosines", "embedding")
METADATA_KEY, METADATA_FILE = "clipzoo", "clipzoo.json"
"""Where the metadata are: of an ONNX file's metadata_props, and of a program's extra files."""
Inputs = tuple[Tensor, ...]
Runner = Callable[[Inputs], dict[str, Tensor]]


def make_program(classifier: nn.Module, example: Inputs) -> ExportedProgram:
    """The graph of a `Classifier` for any numbers of videos and classes.

    Args:
        classifier: in evaluation mode.
        example: its inputs, of 2 videos or more and 2 classes or more: 1 would be a constant.

    Raises:
        RuntimeError: torch cannot export it.
    """
    videos, classes = Dim("batch"), Dim("classes")
    shapes = ({0: videos}, {1: classes}, {0: classes})[: len(example)]
    with torch.no_grad(), _without_notes_of_torch():
        program = torch.export.export(classifier, example, dynamic_shapes=shapes)
    _drop_unused_tensors(program)
    return program


def ignores_words(program: ExportedProgram) -> bool:
    """Whether the token embeddings are an input that no node uses."""
    nodes = {node.name: node for node in program.graph.nodes}
    *_, last = program.graph_signature.user_inputs
    return len(program.graph_signature.user_inputs) == len(INPUTS) and not nodes[str(last)].users


def _drop_unused_tensors(program: ExportedProgram) -> None:
    """Remove the parameters that no node uses, such as those of a trained text tower, which torch
    would save with the program."""
    graph, signature = program.graph_module.graph, program.graph_signature
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for spec in list(signature.input_specs):
        node = nodes[spec.arg.name]
        if spec.kind is InputKind.PARAMETER and spec.target and not node.users:
            graph.erase_node(node)
            signature.input_specs.remove(spec)
            del program.state_dict[spec.target]
    program.graph_module.recompile()


def _write_program(program: ExportedProgram, path: Path, about: dict[str, Any]) -> Runner:
    """Write a .pt2 file; returns what runs it."""
    content = json.dumps(about, ensure_ascii=False)
    buffer = io.BytesIO()  # torch's own writer ends the process where the disk is full
    torch.export.save(program, buffer, extra_files={METADATA_FILE: content})
    path.write_bytes(buffer.getbuffer())
    module = torch.export.load(path).module()
    return lambda inputs: module(*inputs)


def _write_onnx(program: ExportedProgram, path: Path, about: dict[str, Any]) -> Runner:
    """Write an .onnx file, and beside it the weights of more than 2 GB; returns what runs it."""
    import onnx
    import onnxruntime

    num_inputs = len(program.graph_signature.user_inputs)
    with _without_notes_of_torch():
        written: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=INPUTS[:num_inputs],
            output_names=OUTPUTS,
        )
    # Meanwhile torch decomposes an LSTM in another way, which the operator's cache would give to
    # the next export of this process.
    lstm: Any = torch.ops.aten.lstm.input
    lstm._dispatch_cache.clear()
    written.save(path)
    proto = onnx.load(path, load_external_data=False)
    _name_sizes(proto.graph)
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about, ensure_ascii=False)})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> dict[str, Tensor]:
        arrays = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=False)}
        found = zip(OUTPUTS, session.run(OUTPUTS, arrays), strict=True)
        return {name: torch.from_numpy(value) for name, value in found}

    return run


WRITERS: dict[str, Callable[[ExportedProgram, Path, dict[str, Any]], Runner]] = {
    ONNX: _write_onnx,
    PT2: _write_program,
}


def _name_sizes(graph: Any) -> None:
    """Name the two sizes that are free batch and classes, which torch calls s77 and the like."""
    sizes = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    names = {
        sizes["frames"][0].dim_param: "batch",
        sizes["class_embeddings"][1].dim_param: "classes",
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


@contextmanager
def _without_notes_of_torch() -> Iterator[None]:
    """Hide what torch tells its own developers during an export."""
    logging.disable(logging.WARNING)  # "Skipping constant folding for op Split ..."
    try:
        with warnings.catch_warnings():
            # torch's LSTM lists its weights again when they are replaced; export restores the
            # list, and warns nevertheless (github.com/pytorch/pytorch/pull/163809).
            warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
            # The decomposition of the LSTM calls a function that torch deprecates.
            warnings.filterwarnings("ignore", "_check_is_size will be removed", FutureWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)
