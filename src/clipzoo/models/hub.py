"""Files of the model hub: from its cache, or downloaded; a hub that is silent is an error soon."""

import threading
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub

from clipzoo.files import DiskError, named_disk_errors
from clipzoo.tensors import WeightsError

PROBE_SECONDS = 8
"""Longest wait for a model hub that does not answer."""


def is_reachable(server: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers at all within `seconds`.

    Asks in a thread, because a name lookup may hang far longer than any socket timeout.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(server, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # it answers, even if it refuses this request
        except OSError:
            return
        answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def cached_file(repository: str, names: list[str]) -> str | None:
    """Path of the first of some files that the hub's cache has; None = it has none of them."""
    for name in names:
        path = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return path
    return None


def hub_file(repository: str, names: list[str]) -> Path:
    """The first of some files that a repository has: from the hub's cache, or downloaded to it.

    Raises:
        WeightsError: `model.arch` names a repository that has none of them, or the hub cannot be
            reached.
    """
    if path := cached_file(repository, names):
        return Path(path)
    server, files = huggingface_hub.constants.ENDPOINT, " or ".join(names)
    where = f"model.arch: hf-hub:{repository}: {files}"
    if huggingface_hub.constants.HF_HUB_OFFLINE or not is_reachable(server):
        raise WeightsError(
            f"{where} has to be downloaded from {server}, which cannot be reached, and is not in "
            "the cache; give a folder with its files (model.arch local-dir:FOLDER), a mirror "
            "(HF_ENDPOINT=https://...), or a cache filled on another machine (HF_HOME)"
        )
    for name in names:
        try:
            with named_disk_errors(huggingface_hub.constants.HF_HUB_CACHE):
                return Path(huggingface_hub.hf_hub_download(repository, name))
        except DiskError:
            raise
        except huggingface_hub.errors.EntryNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise WeightsError(f"{where} cannot be downloaded ({error})") from error
    raise WeightsError(f"{where}: no such file; allowed: a repository with a model of open_clip")
