"""A dataset `mine`: its annotation files and the index of its frames."""

from pathlib import Path

import pyarrow as pa

from clipzoo.data.index import INDEX_COLUMNS, ShardState, index_path, write_index
from clipzoo.data.records import read_list


def store_index(
    videos: dict[str, int],
    failures: dict[str, str] | None = None,
    fps: float = 0.0,
    start_seconds: float = 0.0,
    uneven_seconds: float = 0.0,
) -> None:
    """An index of dataset `mine` with these frame counts."""
    rows = [
        {"video_id": video_id, "path": video_id, "source_size": 1, "shard": 0, "num_frames": n}
        | {"width": 4, "height": 4, "fps": fps, "decord_fault": ""}
        | {"start_seconds": start_seconds, "uneven_seconds": uneven_seconds}
        for video_id, n in videos.items()
    ]
    table = pa.Table.from_pylist(rows, pa.schema(list(INDEX_COLUMNS.items())))
    state = ShardState("x", 0, 0, [list(item) for item in (failures or {}).items()])
    index_path("mine").parent.mkdir(parents=True, exist_ok=True)
    write_index(table, {0: state}, index_path("mine"))


def annotate(form: str, files: dict[str, str], extra: str = "", name: str = "mine") -> None:
    """datasets/<name>.yaml and annotation files."""
    Path(f"datasets/{name}.yaml").write_text(f"about: x\nformat: {form}\n{extra}")
    folder = Path(f"data/annotations/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def ids(name: str, num_classes: int = 2) -> list[str]:
    """Video ids of lists/mine/<name>.csv."""
    return [r.video_id for r in read_list(f"lists/mine/{name}.csv", num_classes)]
