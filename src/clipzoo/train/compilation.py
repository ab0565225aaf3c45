"""torch.compile of the vision tower, for `train.compile`.

A ViT is compiled block by block, because all blocks share one compilation. So it takes seconds
rather than minutes, activation checkpointing (which wraps blocks) works as before, and gradients
are exchanged while the backward pass runs. Other towers are compiled as a whole.

A ViT is compiled up to twice, for full micro-batches and for all other sizes (the rest of a step or
an epoch), and up to twice more for the pass without a graph of a loss that compares videos.
Validations use the tower as it is: they would need more compilations than they are worth, and so
their arithmetic is that of `test`.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from clipzoo.train.setup import TrainingError


def compile_tower(visual: nn.Module, backend: str | Callable[..., object] = "inductor") -> None:
    """Compile a vision tower in place, when it first runs; names of parameters do not change.

    It must have its temporal modules and activation checkpointing, and DistributedDataParallel must
    not wrap it yet. Tests use a backend that does not compile.
    """
    import torch._dynamo.config  # slow

    # It would cut a compiled block into parts, to exchange each part's gradients early.
    torch._dynamo.config.optimize_ddp = False
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    for module in blocks if isinstance(blocks, nn.ModuleList) else [visual]:
        module.compile(backend=backend)


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """A context in which compiled modules run as they are written."""
    return torch.compiler.set_stance("force_eager")


@contextlib.contextmanager
def named_compiler_errors() -> Iterator[None]:
    """Turn a failure of torch.compile into a TrainingError that names the key to change."""
    from torch._dynamo.exc import TorchDynamoException  # slow

    try:
        yield
    except TorchDynamoException as error:
        first = " ".join(str(error).partition("\n\n")[0].split())
        raise TrainingError(
            f"train.compile: the vision tower cannot be compiled ({first}); set it to false: the "
            "run then continues from its last resume point"
        ) from error
