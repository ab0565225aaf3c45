"""`CLIPZOO_WEIGHTS`: a folder of this machine in which pretrained tags are looked up first.

Where a machine keeps weights is not a parameter of a run: with the folder, `model.weights: openai`
works offline and is the same setting as with a download. A file is taken for a tag if

- its sha256 is the one that open_clip's registry has in the tag's URL (all digits for OpenAI's
  files, the first 8 for those of open_clip's own releases), under any name, in any subfolder; or
- it lies where the model hub puts the tag's file: `<repository>/FILE`, `<owner>/<repository>/FILE`
  or `models--<owner>--<repository>/snapshots/<commit>/FILE`. The sha256 that the hub's client keeps
  beside a download is compared, if there is one; without it, the place alone counts; or
- it has the name in the tag's URL, where open_clip's registry has no digest (MetaCLIP's files).

Only files that may be the tag's are read: by name, by place, or by a size that fits the number of
parameters. Nothing is remembered between two calls.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from clipzoo.files import file_sha256
from clipzoo.models.clip import build_clip, native_px, num_parameters
from clipzoo.tensors import WeightsError

VARIABLE = "CLIPZOO_WEIGHTS"
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
HEADER_BYTES = 32_000_000
"""Upper bound of what a weights file holds besides its parameters."""
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class LocalWeights:
    """A file of the folder that holds the weights of a tag."""

    path: Path
    is_original: bool
    """Whether it is the file of the tag's URL, not that of the model hub."""
    checked: str
    """What was compared, in words."""
    notes: list[str]
    """Notes on other files that might have been taken."""


def weights_folder() -> Path | None:
    """The folder that `CLIPZOO_WEIGHTS` names; None = it is not set.

    WeightsError if there is no such folder.
    """
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise WeightsError(
            f"{VARIABLE}: {folder} is not a folder; give one with weights files, or unset it"
        )
    return Path(folder)


def find_tag(name: str, tag: str) -> LocalWeights | None:
    """The weights of an architecture's tag in the folder of `CLIPZOO_WEIGHTS`; None = not there.

    Raises:
        WeightsError: the variable names no folder; or the only files that have the tag's name or
            place are damaged, or are several with different content. Names them.
    """
    folder = weights_folder()
    if folder is None:
        return None
    files = list(weights_files(folder))
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    faults: list[str] = []
    local = _by_url(name, config, files, faults) or _in_hub_layout(config, files, faults)
    if faults and not local:
        raise WeightsError(
            f"{VARIABLE}: {'; '.join(faults)}; get the file again, or remove it; to use such a "
            "file as it is, set -S model.weights=FILE (the row is then marked as modified)"
        )
    return local or _by_name(config, files)


def weights_files(folder: Path) -> Iterator[Path]:
    """All weights files below a folder, in a fixed order; links are followed."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for path in (Path(root, name) for name in sorted(names)):
            if path.suffix in SUFFIXES and path.is_file():
                yield path


def tag_digest(config: dict[str, Any]) -> str:
    """The sha256 of the file of a tag's URL, or how it begins, as open_clip knows it; '' = unknown.

    open_clip has the digest in the URL (open_clip/pretrained.py, `download_pretrained_from_url`).
    """
    url = config.get("url", "")
    if "openaipublic" in url:
        return url.split("/")[-2]
    return Path(url).stem.rpartition("-")[2] if "mlfoundations" in url else ""


def tag_of_file(name: str, path: Path) -> tuple[str, str] | None:
    """The architecture (with either activation) and the tag whose file has the sha256 of this one,
    according to open_clip's registry; None = there is none."""
    sha256 = file_sha256(path)
    for model in (name, f"{name}-quickgelu"):
        for tag in open_clip.list_pretrained_tags_by_model(model):
            digest = tag_digest(open_clip.get_pretrained_cfg(model, tag))
            if digest and sha256.startswith(digest):
                return model, tag
    return None


def _by_url(
    name: str, config: dict[str, Any], files: list[Path], faults: list[str]
) -> LocalWeights | None:
    """The file with the digest that open_clip knows; what is wrong with others goes to `faults`."""
    digest, filename = tag_digest(config), os.path.basename(config.get("url", ""))
    if not digest or not files:
        return None
    with torch.device("meta"):
        values = num_parameters(build_clip(name, native_px(name), device="meta"))
    sizes = range(int(1.9 * values), int(4.1 * values) + HEADER_BYTES)  # float16 to float32
    matches = []
    for path in files:
        if path.name != filename and path.stat().st_size not in sizes:
            continue
        sha256 = file_sha256(path)
        if sha256.startswith(digest):
            matches.append(path)
        elif path.name == filename:
            faults.append(
                f"{path} has sha256 {sha256[:12]}..., not {digest[:12]}... as open_clip knows it: "
                "it is damaged or another file"
            )
    if not matches:
        return None
    faults += [f"{other} is the same file as {matches[0]}" for other in matches[1:]]
    length = "" if len(digest) == 64 else f", the first {len(digest)} digits"
    checked = f"sha256 {digest[:12]} as open_clip knows it{length}"
    return LocalWeights(path=matches[0], is_original=True, checked=checked, notes=faults)


def hub_files(config: dict[str, Any]) -> tuple[str, list[str]]:
    """A tag's repository on the model hub, and names of its file, the best first; '' = none."""
    repository, filename = os.path.split(config.get("hf_hub", ""))
    if filename:
        return repository, [f"{Path(filename).stem}.safetensors", filename]
    return repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]


def _in_hub_layout(
    config: dict[str, Any], files: list[Path], faults: list[str]
) -> LocalWeights | None:
    """The file at the place where the model hub's client puts it."""
    repository, names = hub_files(config)
    if not repository:
        return None
    for name in names:
        places = [path for path in files if path.name == name and _is_place(path, repository)]
        matches: dict[str, tuple[Path, str]] = {}
        for path in places:
            known = _hub_digest(path)
            sha256 = file_sha256(path) if known or len(places) > 1 else ""
            if known and sha256 != known:
                faults.append(
                    f"{path} has sha256 {sha256[:12]}..., not {known[:12]}... as the model hub's "
                    "client noted: it is damaged"
                )
            elif sha256 in matches:
                faults.append(f"{path} is the same file as {matches[sha256][0]}")
            else:
                noted = f"sha256 {known[:12]} as the model hub's client noted"
                matches[sha256] = path, noted if known else "its place; no digest of it is known"
        if len(matches) > 1:
            paths = " and ".join(str(path) for path, _ in matches.values())
            faults.append(f"{paths} have different content")
            return None
        for path, checked in matches.values():
            checked += f", of {repository}"
            return LocalWeights(path=path, is_original=False, checked=checked, notes=faults)
    return None


def _is_place(path: Path, repository: str) -> bool:
    """Whether a file lies where the hub's client, or a clone, puts those of a repository."""
    owner, _, name = repository.rpartition("/")
    *_, folder, parent = ("", "", *path.absolute().parts[:-1])
    if parent == name:
        return True
    snapshots = path.absolute().parent.parent
    if folder != "snapshots" or snapshots.parent.name != f"models--{owner}--{name}":
        return False
    main = snapshots.parent / "refs" / "main"  # the commit of the newest download
    return not main.is_file() or main.read_text(encoding="utf-8").strip() == parent


def _hub_digest(path: Path) -> str:
    """The sha256 of a downloaded file according to the hub's client; '' = it left none.

    In its cache a file is a link to a blob that has the sha256 as its name; for a download to a
    folder, a file in `.cache/huggingface/download` holds it.
    """
    blob = Path(os.path.realpath(path))
    if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name):
        return blob.name
    note = path.parent / ".cache/huggingface/download" / f"{path.name}.metadata"
    try:
        lines = note.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next(filter(SHA256.fullmatch, lines), "")


def _by_name(config: dict[str, Any], files: list[Path]) -> LocalWeights | None:
    """The file with the name in the URL, of a tag without a digest."""
    filename = os.path.basename(config.get("url", ""))
    if not filename or tag_digest(config):
        return None
    matches = [path for path in files if path.name == filename]
    if len({file_sha256(path) for path in matches} if len(matches) > 1 else matches) > 1:
        paths = " and ".join(map(str, matches))
        raise WeightsError(f"{VARIABLE}: {paths} have different content; remove all but one")
    if not matches:
        return None
    checked = "its name; no digest of it is known"
    return LocalWeights(path=matches[0], is_original=True, checked=checked, notes=[])
