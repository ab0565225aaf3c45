"""Model folders of the model hub: `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`.

Two files are downloaded, by their names: config.json and model.safetensors. Nothing else of a
repository is, so that no code of strangers comes to this machine. `push` uploads what publish
wrote.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import huggingface_hub
from huggingface_hub import constants, errors

from clipzoo.config import ConfigError
from clipzoo.files import DiskError, named_disk_errors
from clipzoo.models.hub import is_reachable
from clipzoo.serve.folder import CONFIG_NAME, WEIGHTS_NAME
from clipzoo.serve.sources import HUB as PREFIX
from clipzoo.tensors import WeightsError

NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?", re.ASCII)


def fetch_folder(name: str) -> Path:
    """The folder in the hub's cache with the two files of a model, both of one commit.

    A branch (`main` unless the name has a revision) is looked up every time; if the hub cannot be
    reached, its last known commit is taken from the cache.

    Args:
        name: `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`: a branch, a tag or a commit.

    Raises:
        WeightsError: the name is wrong, the hub cannot be reached and the cache has not got the
            files, or there is no such repository, revision or file.
        DiskError: the disk is full.
    """
    repository, revision = split_name(name)
    server = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE or not is_reachable(server):
        paths = [
            huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
            for file in (CONFIG_NAME, WEIGHTS_NAME)
        ]
        folders = {Path(path).parent if isinstance(path, str) else None for path in paths}
        folder = folders.pop()
        if folder is None or folders:
            raise WeightsError(
                f"{name}: has to be downloaded from {server}, which cannot be reached, and is not "
                "in the cache; give a model folder, a mirror (HF_ENDPOINT=https://...), or a cache "
                "filled on another machine (HF_HOME)"
            )
        return folder
    config = _download(name, repository, CONFIG_NAME, revision)
    # The name of its folder is the commit; a branch may have moved since.
    return _download(name, repository, WEIGHTS_NAME, config.parent.name).parent


def split_name(name: str) -> tuple[str, str]:
    """The repository and the revision of `hf:OWNER/NAME[@REVISION]`; WeightsError if the name has
    another form."""
    found = NAME.fullmatch(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    try:
        if found is None or ".." in name:
            raise ValueError("the form is wrong")
        huggingface_hub.utils.validate_repo_id(found["repository"])
    except ValueError as error:
        raise WeightsError(
            f"model: found {name!r}; allowed: {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION "
            f"({error})"
        ) from error
    return found["repository"], found["revision"] or "main"


def _download(name: str, repository: str, file: str, revision: str) -> Path:
    try:
        with named_disk_errors(constants.HF_HUB_CACHE):
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
    except DiskError:
        raise
    except Exception as error:  # of huggingface_hub, of its HTTP library or of its Xet client
        _explain(name, file, error)


def _explain(name: str, file: str, error: Exception) -> NoReturn:
    """Raise the WeightsError of a download that failed."""
    repository, revision = split_name(name)
    server = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        fault = f"{server} asks for the consent of its owner; accept its terms there, then log in"
    elif isinstance(error, errors.RepositoryNotFoundError):
        fault = (
            f"no such repository on {server}, or it is private; check the name, or log in "
            "(HF_TOKEN, or `hf auth login`)"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        fault = f"{repository} has no branch, tag or commit {revision!r}"
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        fault = f"{repository} has no {file}; allowed: a folder written by `clipzoo publish`"
    else:
        fault = f"{file} cannot be downloaded from {server} ({error})"
    raise WeightsError(f"{name}: {fault}") from error


def check_push(repository: str) -> None:
    """Raise ConfigError unless a repository can be uploaded to, as far as this machine can tell:
    its name is OWNER/NAME, there is a token, and the hub answers."""
    if NAME.fullmatch(repository) is None or "@" in repository:
        raise ConfigError(f"--push: found {repository!r}; allowed: OWNER/NAME")
    try:
        huggingface_hub.utils.validate_repo_id(repository)
    except ValueError as error:
        raise ConfigError(f"--push: found {repository!r}; allowed: OWNER/NAME ({error})") from error
    if not huggingface_hub.get_token():
        raise ConfigError(
            f"--push: no token of {constants.ENDPOINT}; log in with `hf auth login`, or set "
            "HF_TOKEN to a token that may write"
        )
    if constants.HF_HUB_OFFLINE or not is_reachable(constants.ENDPOINT):
        raise ConfigError(
            f"--push: {constants.ENDPOINT} cannot be reached, or HF_HUB_OFFLINE is set"
        )


def push(
    repository: str, folder: Path, files: Sequence[str], message: str, space: bool = False
) -> str:
    """Upload files of a folder as one commit; the repository is made if it is missing.

    Args:
        files: their paths, relative to `folder`; others are not uploaded.
        message: the title of the commit.
        space: the repository is a Space with a Gradio page, and not a model.

    Returns:
        the address of the commit.

    Raises:
        ConfigError: the hub refuses, or fails.
    """
    kind, sdk = ("space", "gradio") if space else ("model", None)
    api = huggingface_hub.HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(repository, repo_type=kind, space_sdk=sdk, exist_ok=True)
        # upload_folder may make several commits, and config.json and the weights belong together.
        commit = api.create_commit(
            repository,
            [huggingface_hub.CommitOperationAdd(name, folder / name) for name in files],
            repo_type=kind,
            commit_message=message,
        )
    except Exception as error:  # of huggingface_hub, of its HTTP library or of its Xet client
        again = shlex.join(_upload_again(repository, folder, files, kind))
        raise ConfigError(
            f"--push: {repository} ({kind}) cannot be uploaded to {constants.ENDPOINT} ({error}); "
            f"{folder} is complete: `{again}` tries again"
        ) from error
    return commit.commit_url


def _upload_again(repository: str, folder: Path, files: Sequence[str], kind: str) -> list[str]:
    """The command that uploads these files of a folder, and no others."""
    words = ["hf", "upload", repository, str(folder), "."]
    if kind != "model":
        words += ["--repo-type", kind]
    uploaded = {Path(name).parts[0] for name in files}
    others = sorted(path for path in folder.iterdir() if path.name not in uploaded)
    for path in others:
        words += ["--exclude", f"{path.name}/*" if path.is_dir() else path.name]
    return words
