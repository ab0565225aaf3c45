"""Errors of torch as messages that name a key, in a stage of one process."""

import pytest
import torch
from torch.distributed import DistBackendError  # pyright: ignore[reportPrivateImportUsage]

from clipzoo.runtime.launch import run_stage
from clipzoo.runtime.failures import is_final

GPU_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore text")
BLAS_MEMORY = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
CPU_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 90 bytes."
)
ASSERT = torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors", 710)
NCCL = DistBackendError("NCCL error in: x.cpp:1, remote process exited")
GLOO = RuntimeError("[/x/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")


@pytest.fixture(autouse=True)
def stage(tmp_path, monkeypatch) -> None:
    """A folder and a command line, for the stage's lock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stage.py"])


def error_of(error: Exception, capsys, module: str = "clipzoo.clips.encoding") -> str:
    """What a stage prints whose function in `module` raises `error`."""
    space = {"__name__": module, "error": error.with_traceback(None)}
    exec("def encode():\n    raise error", space)

    def stage() -> None:
        space["encode"]()

    with pytest.raises(SystemExit) as stopped:
        run_stage(stage)
    assert stopped.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GPU_MEMORY, ["GPU 0 (rank 0)", "2.00 GiB", "train.activation_checkpointing=true"]),
        (BLAS_MEMORY, ["GPU 0 (rank 0)", "CUBLAS_STATUS_ALLOC_FAILED"]),
        (CPU_MEMORY, ["this machine's memory", "90 bytes", "runtime.processes"]),
        (MemoryError(), ["this machine's memory", "MemoryError"]),
    ],
)
def test_memory_that_ran_out_names_the_micro_batch(project, capsys, monkeypatch, error, words):
    err = error_of(error, capsys)
    for word in ["error: runtime.micro_batch: found 0 (the stage chose a number", *words]:
        assert word in err
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("micro_batch: 0", "micro_batch: 24"))
    assert "runtime.micro_batch: found 24, and" in error_of(error, capsys)
    assert is_final(error)


@pytest.mark.parametrize("error", [CPU_MEMORY, MemoryError("Unable to allocate 746 TiB")])
@pytest.mark.parametrize("module", ["clipzoo.data.video", "clipzoo.evaluate.intervals", "numpy"])
def test_memory_that_no_batch_needs_is_not_blamed_on_the_micro_batch(
    capsys, monkeypatch, error, module
):
    err = error_of(error, capsys, module)
    place = "clipzoo.runtime." if module == "numpy" else f"{module}.encode"
    assert f"error: {place}" in err
    assert f": this machine's memory ran out ({str(error)[:20]}" in err
    assert "micro_batch" not in err
    assert is_final(error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ASSERT, ["GPU 3 (rank 11)", "device-side assert triggered", "runtime.device=cpu"]),
        (NCCL, ["rank 11", "remote process exited", "is lost"]),
        (GLOO, ["rank 11", "Connection closed by peer", "is lost"]),
    ],
)
def test_errors_of_gpus_and_connections_name_the_rank(capsys, monkeypatch, error, words):
    monkeypatch.setenv("RANK", "11")
    monkeypatch.setenv("LOCAL_RANK", "3")
    err = error_of(error, capsys)
    assert all(word in err for word in words), err
    assert not is_final(error)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), False),
        (BrokenPipeError(32, "Broken pipe"), False),
        (FileNotFoundError(2, "No such file or directory"), True),
        (OSError(28, "No space left on device"), True),
        (ValueError("train.epochs: found -1"), True),
        (RuntimeError("a bug that depends on timing"), False),
    ],
)
def test_a_restart_helps_where_a_connection_broke_and_not_where_a_value_or_file_is_wrong(
    error, final
):
    assert is_final(error) is final


def test_shared_memory_that_nccl_cannot_use_is_named(capsys):
    fault = "NCCL error: Error while creating shared memory segment /dev/shm/nccl-x (size 9)"
    error = DistBackendError(f"{fault}\nmore")
    err = error_of(error, capsys)
    for word in ("/dev/shm", fault, "--shm-size", "NCCL_SHM_DISABLE=1"):
        assert word in err
    assert is_final(error)


def test_a_bug_keeps_its_traceback(capsys):
    def stage() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_stage(stage)
