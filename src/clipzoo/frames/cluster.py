"""Extraction on the workers of a Dask cluster (`runtime.executor: dask`).

A worker needs our code, our ffmpeg, and the raw videos and the output folder under the same
absolute paths. Each worker proves this before the first shard. Every task proves it again, because
workers may join later; unlike a plugin of the scheduler, a check in the task ends with this run and
raises its error here.

A worker proves that it shares the output folder by a token: a file with random content that exists
while extraction runs. A task also reads it before each video and before its shard is renamed into
place, and stops if it is gone. So no shard appears after extraction has failed, even though Dask
cannot stop a running task, and even if the scheduler is lost and cannot be asked.
"""

import hashlib
import itertools
import logging
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from distributed import Client, KilledWorker, Security, Worker, get_worker
from distributed import TimeoutError as DaskTimeoutError
from distributed.versions import VersionMismatchWarning, get_versions

from clipzoo.config import ConfigError
from clipzoo.data.ffmpeg import ffmpeg_version
from clipzoo.data.index import StoreError
from clipzoo.files import raise_all
from clipzoo.frames.executors import Task, Workers

PACKAGE = Path(__file__).parents[1]
CONNECT_SECONDS = 20
WORKERS_SECONDS = 60
"""How long a cluster may be without workers, at the start or later."""
IDLE_SECONDS = 300
"""How long to wait for running tasks at the end; they stop at their next video."""
ANSWER_SECONDS = 60
"""How long a worker may take to answer."""
KEPT = "finished shards are kept; run it again"
"""The end of messages."""
MODULES = ("config.py", "files.py", "paths.py", "sections.py", "yaml_files.py")
"""What a shard depends on besides the folders data and frames."""


def _fingerprint_of_code() -> str:
    """sha256 over the sources that a shard depends on."""
    paths = [PACKAGE / name for name in MODULES]
    paths += [*PACKAGE.glob("data/*.py"), *PACKAGE.glob("frames/*.py")]
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


CODE = _fingerprint_of_code()
"""The fingerprint of the code that this process runs, computed when it imports the code: a worker
may have been started before an update."""


@dataclass(frozen=True)
class Claim:
    """What a worker needs to make shards. All paths are absolute."""

    root: Path
    """The folder that the videos' paths are relative to."""
    ffmpeg: str | None
    """The first line of `ffmpeg -version`; None = ffmpeg is not used."""
    code: str
    token_path: Path
    token: str

    def check(self) -> None:
        """Raise StoreError if this extraction has ended."""
        if self._found_token() != self.token:
            raise StoreError(f"{self.token_path}: gone, so this extraction has ended")

    def faults(self) -> list[str]:
        """What this process must change before it may make shards; empty = nothing."""
        faults = []
        if self.code != CODE:
            faults.append(
                f"code: found {CODE[:12]} in {PACKAGE}; allowed: {self.code[:12]}, that of this "
                "machine; update the worker's copy and restart the worker"
            )
        try:
            ffmpeg = ffmpeg_version() if self.ffmpeg else None
        except OSError as error:
            ffmpeg = str(error)
        if ffmpeg != self.ffmpeg:
            faults.append(f"ffmpeg: found {ffmpeg!r}; allowed: {self.ffmpeg!r}; install that one")
        if not self.root.is_dir():
            faults.append(
                f"raw videos: found no folder {self.root}; allowed: that of this machine; mount it "
                "on the worker under the same path"
            )
        token = self._found_token()
        if token != self.token:
            faults.append(
                f"output folder: found {token!r} in {self.token_path}; allowed: {self.token!r}, "
                "written by this machine; share the folder with the worker under the same path"
            )
        return faults

    def _found_token(self) -> str:
        try:
            return self.token_path.read_text(encoding="utf-8")
        except OSError as error:
            return error.strerror or str(error)


@contextmanager
def dask_workers(
    address: str, root: Path, directory: Path, ffmpeg: str | None, share: tuple[int, int]
) -> Iterator[Workers]:
    """Run tasks on the workers of a Dask cluster.

    When the block ends, no task of it is running on a worker that can be reached.

    Args:
        address: the address of the scheduler.
        root: the folder of the raw videos.
        directory: the output folder.
        ffmpeg: the first line of `ffmpeg -version` that workers must have; None = not used.
        share: (i, n) of `--shard i/n`; several shares may run at the same time.

    Raises:
        ConfigError: the scheduler cannot be reached.
        StoreError: a worker does not have what it needs, workers died, or the scheduler was lost.
            Finished shards remain.
    """
    with _connected(address) as client, _claimed(root, directory, ffmpeg, share) as claim:
        pool, numbers = client.get_executor(pure=False), itertools.count()
        key = f"make_shard-{claim.token}"

        def submit(task: Task) -> Future[int]:
            return pool.submit(_run_task, task, claim, key=f"{key}-{next(numbers)}")

        try:
            _await_workers(client, address)
            _print_workers(client, address)
            prove_workers(client, claim)
            yield Workers(submit, partial(_await_workers, client, address), Path.cwd())
        except StoreError:
            raise
        except Exception as error:
            _explain(error, client, address, claim)
            raise
        finally:
            claim.token_path.unlink(missing_ok=True)
            _await_idle(client, key)


def _check_security(address: str) -> None:
    """Raise ConfigError if Dask's configuration does not fit tls://, or demands it."""
    security, secure = Security(), address.startswith("tls://")
    files = security.get_tls_config_for_role("client")
    fault = "demands encryption" if security.require_encryption else ""
    if secure:
        try:
            context = security.get_connection_args("client")["ssl_context"]
            fault = "" if context else "has no certificates for it"
        except OSError as error:
            fault = f"names certificates that cannot be used ({error}): {files}"
    if fault:
        raise ConfigError(
            f"runtime.scheduler: found {address!r}, and the configuration of Dask {fault}; "
            "allowed: tcp://, without encryption; or tls://, with PEM files in the variables "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, .._TLS__CLIENT__CERT and .._TLS__CLIENT__KEY "
            "(docs/clusters.md)"
        )


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    _check_security(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # _print_workers reports them
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise ConfigError(
            f"runtime.scheduler: found {address!r}, where no Dask scheduler answers ({error}); "
            "allowed: the address that `dask scheduler` prints; start one, or set "
            "runtime.executor to processes"
        ) from error
    with client:
        yield client


@contextmanager
def _claimed(
    root: Path, directory: Path, ffmpeg: str | None, share: tuple[int, int]
) -> Iterator[Claim]:
    """The claim of this run; its token exists until the block ends."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    # Merging removes whatever is named shard-*, also tokens of other shares that were killed.
    name = f"shard-token-{share[0]}-of-{share[1]}"
    for left_over in directory.glob(f"{name}-*"):  # of a killed run: its tasks stop now
        left_over.unlink(missing_ok=True)
    token = secrets.token_hex(8)
    # No token has the path of an earlier one, whose absence a worker's NFS may remember.
    path = directory / f"{name}-{token}"
    path.write_text(token, encoding="utf-8")
    try:
        yield Claim(root.absolute(), ffmpeg, CODE, path, token)
    finally:
        path.unlink(missing_ok=True)


def _await_workers(client: Client, address: str) -> None:
    """Return when the cluster has a worker; StoreError if it has had none for WORKERS_SECONDS, or
    the scheduler is lost."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except DaskTimeoutError as error:
        raise StoreError(
            f"runtime.scheduler: the Dask scheduler at {address} has had no workers for "
            f"{WORKERS_SECONDS} s; start one or more with `dask worker {address}`; {KEPT}"
        ) from error


def _print_workers(client: Client, address: str) -> None:
    workers = _workers(client).values()
    threads = sum(worker["nthreads"] for worker in workers)
    print(f"{len(workers)} Dask workers with {threads} threads at {address}", flush=True)
    here = get_versions()["packages"]
    for worker, versions in _ask(client, get_versions).items():
        there = versions["packages"] if isinstance(versions, dict) else here
        for package in ("python", "dask", "distributed", "cloudpickle"):
            if there[package] != here[package]:
                print(
                    f"note: Dask worker {worker} has {package} {there[package]}, this machine "
                    f"{here[package]}; if tasks fail, install requirements.lock there"
                )


def prove_workers(client: Client, claim: Claim) -> None:
    """Raise StoreError, with every fault of every worker, unless all may make shards."""
    answers = _ask(client, Claim.faults, claim)
    names = {address: worker["name"] for address, worker in _workers(client).items()}
    faults = []
    for address, answer in answers.items():
        worker = _named(names.get(address), address)
        if isinstance(answer, list):
            faults += [f"{worker}: {fault}" for fault in answer]
        elif address in names:  # otherwise it has left
            faults.append(
                f"{worker}: cannot run our code ({answer!r}); allowed: "
                f"the clipzoo of this machine, {PACKAGE}; start the worker with the same .venv"
            )
    raise_all(f"{len(faults)} faults of Dask workers; no shard was made:", faults, StoreError)


def _ask(client: Client, function: Callable[..., object], *arguments: object) -> dict[str, Any]:
    """The answer of each worker, by address; an exception is an answer too. DaskTimeoutError if a
    worker does not answer within ANSWER_SECONDS."""
    # `Client.run` is the same without a limit: a worker that hangs would make us hang.
    answers = client.sync(
        client._run, function, *arguments, on_error="return", callback_timeout=ANSWER_SECONDS
    )
    return cast(dict[str, Any], answers)


def _workers(client: Client) -> dict[str, dict[str, Any]]:
    return cast(dict[str, Any], client.scheduler_info(n_workers=-1))["workers"]


def _named(name: object, address: str) -> str:
    """A worker, for messages; its name is its address unless it was started with one."""
    return f"Dask worker {address if name in (None, address) else f'{name} ({address})'}"


def _run_task(task: Task, claim: Claim) -> int:
    """Prove this worker and run one task on it."""
    worker = get_worker()
    name = _named(worker.name, worker.address)
    raise_all(f"{name} joined later and cannot make shards:", claim.faults(), StoreError)
    try:
        return task(claim.check)
    except OSError as error:
        raise StoreError(f"{name}: {error}") from error


def _explain(error: Exception, client: Client, address: str, claim: Claim) -> None:
    """Raise a StoreError if the cause of an error is known."""
    if isinstance(error, KilledWorker):
        raise StoreError(
            f"{error.allowed_failures + 1} Dask workers died on the same shard, the last one was "
            f"{_named(error.last_worker.name, error.last_worker.address)} (out of memory? its log "
            f"may say); {KEPT}"
        ) from error
    if isinstance(error, (CancelledError, OSError)) or client.status != "running":
        # It would print the tracebacks of its attempts to reconnect.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        raise StoreError(
            f"runtime.scheduler: the Dask scheduler at {address} was lost or restarted "
            f"({error!r}); {KEPT}"
        ) from error
    prove_workers(client, claim)  # a worker that joined later may not even import our code


def _await_idle(client: Client, key: str) -> None:
    """Wait until no worker runs a task of ours any more; report it if that takes too long."""
    deadline = time.monotonic() + IDLE_SECONDS
    while client.status == "running":  # else no one can be asked; tasks stop on their own
        try:
            answers = _ask(client, _running_tasks, key)
        except (OSError, DaskTimeoutError) as error:
            print(f"unknown whether Dask workers still run tasks: {error!r}", file=sys.stderr)
            return
        busy = [worker for worker, count in answers.items() if isinstance(count, int) and count]
        if not busy:
            return
        if time.monotonic() > deadline:
            print(
                f"after {IDLE_SECONDS} s tasks still run on {', '.join(busy)}; they stop at their "
                "next video",
                file=sys.stderr,
            )
            return
        time.sleep(0.2)


def _running_tasks(key: str, dask_worker: Worker) -> int:
    """How many tasks of this run occupy a thread of a worker, canceled ones included."""
    tasks = dask_worker.state.all_running_tasks
    return sum(str(task.key).startswith(key) for task in tasks)
