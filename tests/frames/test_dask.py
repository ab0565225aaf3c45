"""Extraction on a Dask cluster: the same files as with processes, refusals, deaths, no late writes.

The workers' folder differs from the project's in all tests.
"""

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from dask import config as dask_config
from distributed import Client, LocalCluster

from clipzoo.commands.scan import scan
from clipzoo.config import ConfigError, Params
from clipzoo.data.ffmpeg import ffmpeg_path, ffmpeg_version
from clipzoo.data.index import StoreError, index_path, read_failures, shard_name
from clipzoo.data.ledger import write_ledger
from clipzoo.frames import cluster as cluster_module
from clipzoo.frames.cluster import CODE, PACKAGE, Claim, dask_workers
from clipzoo.frames.extraction import extract, make_shard
from clipzoo.frames.plan import plan_shards
from test_pipeline import reachable
from videos import make_video

FRAMES = Path("data/frames/mine")
ROOT = Path(__file__).parents[2]
STAGE = ROOT / "stages" / "extract_frames.py"
VIDEOS = 6


@contextmanager
def local_cluster(num_workers: int) -> Iterator[LocalCluster]:
    """A scheduler in this process and worker processes of one thread each."""
    # Logs are silenced, because deaths are meant.
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    with LocalCluster(n_workers=num_workers, threads_per_worker=1, **options) as cluster:
        yield cast(LocalCluster, cluster)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[LocalCluster]:
    """Two workers, which run in a folder of their own."""
    start, elsewhere = Path.cwd(), tmp_path_factory.mktemp("elsewhere")
    os.chdir(elsewhere)
    try:
        with local_cluster(2) as cluster:
            os.chdir(start)
            yield cluster
    finally:
        os.chdir(start)
    assert not list(elsewhere.rglob("shard-*"))


@pytest.fixture
def client(cluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        client.run(set_path, os.environ["PATH"])
        yield client


@pytest.fixture
def videos(project) -> Path:
    """Six videos in one class."""
    root = project / "videos"
    for i in range(VIDEOS):
        make_video(root / "a" / f"v{i}.avi", 8 + i)
    scan("mine", root)
    return root


@pytest.fixture
def params(params_for, cluster) -> Params:
    """One video a shard, made on the cluster."""
    address = cluster.scheduler_address
    return params_for(
        "mine", frames={"shard_videos": 1}, runtime={"executor": "dask", "scheduler": address}
    )


UseFfmpeg = Callable[..., None]


@pytest.fixture
def use_ffmpeg(project, client, monkeypatch) -> Iterator[UseFfmpeg]:
    """use_ffmpeg(script): put an ffmpeg on PATH that runs `script` before ours does its work."""
    folder, path = project / "bin", os.environ["PATH"]

    def use(script: str, workers: list[str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "ffmpeg").write_text(f'#!/bin/sh\n{script}\nexec {real} "$@"\n')
        (folder / "ffmpeg").chmod(0o755)
        changed = f"{folder}{os.pathsep}{path}"
        client.run(set_path, changed, workers=workers, on_error="ignore")
        if workers is None:  # also those that are started again, and this process
            monkeypatch.setenv("PATH", changed)

    real = ffmpeg_path()
    yield use
    client.run(set_path, path, on_error="ignore")


def set_path(value: str) -> None:
    os.environ["PATH"] = value


def files(directory: Path = FRAMES) -> dict[str, str]:
    """sha256 of every file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


def remove_frames() -> None:
    for path in FRAMES.iterdir():
        path.unlink()


def resumed(params: Params) -> dict[str, str]:
    """Files after threads have made what is missing."""
    with ThreadPoolExecutor(2) as pool:
        extract(params, "mine", executor=pool)
    return files()


def locally(params: Params) -> dict[str, str]:
    """Files that threads make; removes them."""
    made = resumed(params)
    remove_frames()
    return made


def shard_times() -> dict[str, int]:
    """When each finished shard was made."""
    tars = [path.with_suffix(".tar") for path in FRAMES.glob("shard-*.parquet")]
    return {path.name: path.stat().st_mtime_ns for path in tars}


def test_files_and_summary_are_those_of_processes(videos, params, params_for, capfd):
    (videos / "a" / "broken.avi").write_text("no video")
    scan("mine", videos)
    write_ledger("mine", {"a/broken": "broken"})
    frames = {"shard_videos": 1}
    processes = params_for("mine", frames=frames, runtime={"extract_workers": 1})
    expected, expected_files = extract(processes, "mine"), files()
    remove_frames()
    runtime = {"executor": "dask", "scheduler": params.runtime.scheduler}
    assert extract(params_for("mine", frames=frames, runtime=runtime), "mine") == expected
    assert files() == expected_files
    ((video_id, reason),) = expected.failures
    assert video_id == "a/broken"
    assert "data/raw/mine/a/broken.avi" in reason
    assert str(Path.cwd()) not in reason
    assert read_failures(index_path("mine")) == {video_id: reason}
    output = capfd.readouterr()
    assert f"2 Dask workers with 2 threads at {params.runtime.scheduler}" in output.out
    assert "7/7" in output.err


def test_broken_videos_are_reported_as_with_processes(videos, params, params_for):
    (videos / "a" / "broken.avi").write_text("no video")
    scan("mine", videos)
    (videos / "a" / "v1.avi").unlink()
    with pytest.raises(StoreError, match="2 videos of mine cannot be read") as expected:
        locally(params)
    remove_frames()
    with pytest.raises(StoreError) as caught:
        extract(params, "mine")
    assert str(caught.value) == str(expected.value)
    assert len(shard_times()) == VIDEOS + 1


def test_an_error_in_one_task_stops_all_before_it_is_raised(
    videos, params, project, client, use_ffmpeg
):
    expected = locally(params)
    (FRAMES / shard_name(0)).mkdir()  # the first shard cannot be renamed into place
    # It fails while another one is being made, which takes until extraction has stopped.
    started, token = project / "started", FRAMES.absolute() / "shard-token-*"
    use_ffmpeg(f"""case "$*" in
        *v0.avi*) while ! test -e {started}; do sleep 0.05; done ;;
        *.avi*) touch {started}; while ls {token} > {os.devnull} 2>&1; do sleep 0.05; done ;;
    esac""")
    with pytest.raises(StoreError, match=r"Dask worker .*: \[Errno 21\] Is a directory"):
        extract(params, "mine")
    assert not any(client.run(running_tasks).values())
    names = {path.name for path in FRAMES.iterdir()}
    assert shard_name(0) in names
    assert not names & {shard_name(i) for i in range(1, VIDEOS)}
    assert not [name for name in names if "token" in name or name.endswith(".part")]
    time.sleep(0.5)
    assert {path.name for path in FRAMES.iterdir()} == names
    (FRAMES / shard_name(0)).rmdir()
    use_ffmpeg("")
    extract(params, "mine")
    assert files() == expected


def running_tasks(dask_worker) -> int:
    return len(dask_worker.state.all_running_tasks)


def claim(directory: Path, root: Path) -> Claim:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "shard-token-1-of-1-ab"
    path.write_text("ab")
    return Claim(root, ffmpeg_version(), CODE, path, "ab")


def test_every_fault_of_a_worker_is_found(tmp_path):
    good = claim(tmp_path / "frames", tmp_path)
    assert good.faults() == []
    assert replace(good, ffmpeg=None).faults() == []
    bad = replace(good, code="0" * 64, ffmpeg="ffmpeg version 1", root=tmp_path / "raw", token="cd")
    code, ffmpeg, raw, output = bad.faults()
    assert f"code: found {CODE[:12]} in {PACKAGE}; allowed: 000000000000" in code
    assert f"ffmpeg: found {ffmpeg_version()!r}; allowed: 'ffmpeg version 1'" in ffmpeg
    assert f"raw videos: found no folder {tmp_path / 'raw'}" in raw
    assert "output folder: found 'ab'" in output
    assert "allowed: 'cd'" in output
    good.check()
    good.token_path.unlink()
    (fault,) = good.faults()
    assert f"found 'No such file or directory' in {good.token_path}" in fault
    with pytest.raises(StoreError, match="extraction has ended"):
        good.check()


def test_the_code_is_all_that_a_task_can_reach():
    # These print, count cores, and start and end processes.
    names = ("ending", "progress", "machine", "parent", "pools")
    harmless = {f"src/clipzoo/runtime/{name}.py" for name in names}
    reached = reachable(PACKAGE / "frames" / "extraction.py") - harmless
    assert {Path(path).parts[2] for path in reached} == {*cluster_module.MODULES, "data", "frames"}


def test_the_code_s_fingerprint_changes_with_the_code(tmp_path, monkeypatch):
    for name in (*cluster_module.MODULES, "data/index.py", "frames/packing.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    monkeypatch.setattr(cluster_module, "PACKAGE", tmp_path)
    fingerprint = cluster_module._fingerprint_of_code
    seen = {fingerprint()}
    (tmp_path / "frames" / "notes.txt").write_text("x")
    assert fingerprint() in seen
    for name in ("data/index.py", "frames/packing.py", "config.py"):
        (tmp_path / name).write_text("changed\n")
        assert fingerprint() not in seen
        seen.add(fingerprint())


def test_fingerprints_of_shards_do_not_depend_on_the_folder(videos, params):
    job = plan_shards(params, "mine")[0]
    assert not job.directory.is_absolute()
    assert replace(job, base=Path("/elsewhere")).fingerprint() == job.fingerprint()


def test_a_worker_with_another_ffmpeg_is_refused_by_name(videos, params, client, use_ffmpeg):
    other, same = client.scheduler_info()["workers"]
    use_ffmpeg('test "$1" = -version && echo "ffmpeg version 99" && exit', [other])
    with pytest.raises(StoreError, match="1 faults of Dask workers") as caught:
        extract(params, "mine")
    text = str(caught.value)
    assert f"({other}): ffmpeg: found 'ffmpeg version 99'; allowed: {ffmpeg_version()!r}" in text
    assert same not in text
    assert [path.name for path in FRAMES.iterdir()] == ["plan.parquet"]


def test_a_worker_that_joins_later_is_refused_by_name(videos, params, client, use_ffmpeg):
    job = plan_shards(params, "mine")[0]
    address, root = params.runtime.scheduler, job.root
    with dask_workers(address, root, FRAMES, ffmpeg_version(), (1, 1)) as workers:
        use_ffmpeg('test "$1" = -version && echo "ffmpeg version 99" && exit')
        future = workers.submit(make_shard)  # which is not called
        with pytest.raises(StoreError, match="joined later") as caught:
            future.result()
    assert re.search(r"Dask worker [01] \(tcp://.*\n.*ffmpeg version 99", str(caught.value))
    assert not list(FRAMES.iterdir())


def test_a_worker_that_cannot_import_our_code_is_refused_by_name(videos, params, client):
    other, same = client.scheduler_info()["workers"]
    hidden = {"clipzoo.frames.cluster": None}
    client.run(hide, hidden, workers=[other])
    try:
        with pytest.raises(StoreError, match="cannot run our code") as caught:
            extract(params, "mine")
    finally:
        client.run(unhide, list(hidden), workers=[other])
    assert f"({other})" in str(caught.value)
    assert same not in str(caught.value)


def hide(modules: dict) -> None:
    sys.modules.update(modules)


def unhide(modules: list) -> None:
    for name in modules:
        del sys.modules[name]


def test_versions_that_differ_are_printed(client, monkeypatch, capsys):
    here = cluster_module.get_versions()["packages"]
    versions = {"tcp://a": {"packages": here | {"distributed": "2020.1"}}, "tcp://b": OSError()}
    monkeypatch.setattr(cluster_module, "_ask", lambda *_: versions)
    cluster_module._print_workers(client, "tcp://s:1")
    first, note, *rest = capsys.readouterr().out.splitlines()
    assert first == "2 Dask workers with 2 threads at tcp://s:1"
    assert f"worker tcp://a has distributed 2020.1, this machine {here['distributed']};" in note
    assert rest == []


def test_tokens_of_killed_runs_do_not_stay(videos, params):
    FRAMES.mkdir(parents=True)
    for name in ("shard-token-1-of-1-0123", "shard-token-2-of-3-4567"):
        (FRAMES / name).write_text("x")
    directory = FRAMES.absolute()
    with cluster_module._claimed(Path("data/raw/mine"), FRAMES, None, (1, 1)) as made:
        tokens = {path.name for path in directory.glob("shard-token-*")}
        assert tokens == {made.token_path.name, "shard-token-2-of-3-4567"}
        assert made.root.is_absolute()
        assert made.token_path.read_text() == made.token
    extract(params, "mine")
    assert not list(directory.glob("shard-token-*"))


def run_stage(address: str) -> subprocess.CompletedProcess[str]:
    """extract_frames in this folder, on the cluster of a scheduler."""
    text = Path("params.yaml").read_text()
    for old, new in (
        ("executor: processes", "executor: dask"),
        ("scheduler: ''", f"scheduler: {address}"),
        ("shard_videos: 64", "shard_videos: 1"),
        ("size: 72", "size: 48"),
    ):
        assert old in text
        text = text.replace(old, new)
    Path("params.yaml").write_text(text)
    command = [sys.executable, STAGE, "--dataset", "mine"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_stage_runs_on_the_cluster(videos, params):
    expected = locally(params)
    result = run_stage(params.runtime.scheduler)
    assert result.returncode == 0, result.stderr
    assert f"2 Dask workers with 2 threads at {params.runtime.scheduler}" in result.stdout
    assert "6 videos, 63 frames" in result.stdout
    assert files() == expected


# Deaths come last, because workers that are started again import everything again.


def test_a_killed_worker_costs_only_the_shards_that_it_was_making(
    videos, params, project, use_ffmpeg
):
    expected = locally(params)
    log, mark = project / "log", project / "mark"
    mark.touch()
    use_ffmpeg(f"""case "$*" in
        -version|*"-h long"|*filter=showinfo) ;;
        *v4.avi*) echo v4 >> {log}; rm {mark} && sleep 1 && kill -9 $PPID ;;
        *) echo other >> {log} ;;
    esac""")
    extract(params, "mine")
    assert not mark.exists()
    assert files() == expected
    lines = log.read_text().split()
    assert lines.count("v4") == 2
    # The other worker's shards, and those that the killed one had finished, are made once.
    assert lines.count("other") == VIDEOS - 1


@pytest.mark.slow
def test_a_task_that_always_kills_its_worker(videos, params, cluster, use_ffmpeg):
    expected = locally(params)
    use_ffmpeg('case "$*" in *v5.avi*) sleep 0.5; kill -9 $PPID;; esac')
    allowed = cluster.scheduler.allowed_failures
    cluster.scheduler.allowed_failures = 1
    try:
        with pytest.raises(StoreError, match=r"2 Dask workers died .* finished shards are kept"):
            extract(params, "mine")
    finally:
        cluster.scheduler.allowed_failures = allowed
    assert not list(FRAMES.glob("shard-token-*"))
    made = shard_times()
    assert len(made) >= 3
    use_ffmpeg("")
    assert resumed(params) == expected
    for name, time_ns in made.items():
        assert (FRAMES / name).stat().st_mtime_ns == time_ns


@pytest.fixture
def lonely_cluster(project) -> Iterator[tuple[subprocess.Popen, str]]:
    """A scheduler with one worker, as two processes of their own; (scheduler, its address)."""
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", "scheduler.json"],
        ["worker", "--scheduler-file", "scheduler.json", "--nthreads", "1", "--no-nanny"],
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--no-dashboard"], stderr=subprocess.DEVNULL
        )
        for command in commands
    ]
    with Client(scheduler_file="scheduler.json", set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        address = client.scheduler_info()["address"]
    yield processes[0], address
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_lost_scheduler_is_an_error_and_not_a_hang(
    videos, params_for, lonely_cluster, monkeypatch
):
    scheduler, address = lonely_cluster
    params = params_for(
        "mine", frames={"shard_videos": 1}, runtime={"executor": "dask", "scheduler": address}
    )
    for i in range(2):
        make_video(videos / "a" / f"x{i}.avi", 600)  # the last two shards take long
    scan("mine", videos)
    expected = locally(params)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(extract, params, "mine")
        while not list(FRAMES.glob(f"{shard_name(VIDEOS)}.*.part")):
            assert not running.done()
            time.sleep(0.01)
        start = time.monotonic()
        scheduler.kill()
        with pytest.raises(StoreError, match=rf"scheduler at {address} was lost"):
            running.result(timeout=30)
        assert time.monotonic() - start < 10
    made = shard_times()
    assert len(made) == VIDEOS
    time.sleep(1)
    assert shard_times() == made
    assert resumed(params) == expected


def test_a_cluster_without_workers_is_an_error(videos, params_for, monkeypatch):
    monkeypatch.setattr(cluster_module, "WORKERS_SECONDS", 0.5)
    with local_cluster(0) as empty:
        runtime = {"executor": "dask", "scheduler": empty.scheduler_address}
        with pytest.raises(StoreError, match=r"had no workers for 0\.5 s; start .*`dask worker"):
            extract(params_for("mine", runtime=runtime), "mine")


def test_no_scheduler(videos, params_for, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.5)
    runtime = {"executor": "dask", "scheduler": "tcp://127.0.0.1:1"}
    with pytest.raises(
        ConfigError, match=r"runtime\.scheduler: found 'tcp://127\.0\.0\.1:1', where"
    ):
        extract(params_for("mine", runtime=runtime), "mine")


@pytest.mark.parametrize("address", ["", "host:8786", "http://host:8786", "tcp://host"])
def test_the_address_of_the_scheduler_is_checked(params_for, address):
    found = rf"runtime\.scheduler: found '{address}'; allowed: tcp://host:8786 or tls://"
    with pytest.raises(ConfigError, match=found):
        params_for("mine", runtime={"executor": "dask", "scheduler": address})
    params_for("mine", runtime={"executor": "processes", "scheduler": address})


def test_dask_is_not_installed(videos, params, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"runtime\.executor: found 'dask'.*\[dask\]"):
        extract(params, "mine")


@pytest.mark.parametrize(
    ("address", "fault", "settings"),
    [
        ("tls://127.0.0.1:1", "has no certificates", {}),
        ("tls://127.0.0.1:1", "lost.crt", {"tls.ca-file": "lost.crt", "tls.client.cert": "x"}),
        ("tcp://127.0.0.1:1", "demands encryption", {"require-encryption": True}),
    ],
)
def test_certificates_are_checked_at_once(videos, params_for, address, fault, settings):
    """Before Dask tries to connect, for 40 s."""
    values = {f"distributed.comm.{key}": value for key, value in settings.items()}
    runtime = {"executor": "dask", "scheduler": address}
    begin = time.monotonic()
    with dask_config.set(values), pytest.raises(ConfigError, match=rf"runtime\.scheduler.*{fault}"):
        extract(params_for("mine", runtime=runtime), "mine")
    assert time.monotonic() - begin < 5


@pytest.mark.slow
def test_the_commands_of_the_docs_encrypt_and_listen_where_they_say(
    videos, params, project, monkeypatch
):
    """With this machine's loopback interface in the place of the private network's."""
    expected = locally(params)
    docs = (ROOT / "docs/clusters.md").read_text(encoding="utf-8").replace("\\\n        ", "")
    lines = [line.removeprefix("    ") for line in docs.splitlines() if line.startswith("    ")]
    plain = [line for line in lines if line.startswith(("dask scheduler", "dask worker"))]
    first = next(i for i, line in enumerate(lines) if line.startswith("openssl"))
    tls = lines[first : first + 5]
    encrypted = [line.replace("tls:", "tcp:").replace("--protocol tls ", "") for line in tls[3:]]
    assert plain == [*encrypted, *tls[3:]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    script = "\n".join([*(f"{line} &" if line in tls[3:] else line for line in tls), "wait"])
    for old, new in (
        *(("--interface eth0", "--interface lo"), ("host0:8786", address), ("$(nproc)", "1")),
        ("8786", address.split(":")[1]),
    ):
        script = script.replace(old, new)
    folder = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(project))
    shell = subprocess.Popen(["bash", "-c", script], stderr=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", str(project / "dask.crt"))
        for name in ("crt", "key"):
            key = f"DASK_DISTRIBUTED__COMM__TLS__CLIENT__{'CERT' if name == 'crt' else 'KEY'}"
            monkeypatch.setenv(key, str(project / f"dask.{name}"))
        while not (project / "dask.crt").exists():
            time.sleep(0.1)
        result = run_stage(f"tls://{address}")
        assert result.returncode == 0, result.stderr
        assert f"1 Dask workers with 1 threads at tls://{address}" in result.stdout
        assert files() == expected
        processes = [psutil.Process(shell.pid), *psutil.Process(shell.pid).children(recursive=True)]
        sockets = [one for p in processes for one in p.net_connections("inet")]
        listening = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
    finally:
        for process in [*psutil.Process(shell.pid).children(recursive=True), shell]:
            process.kill()
        shell.wait()
