"""What files record beside results: each key of their JSON and metadata, declared once.

Metrics files, prediction files and model files have these keys. `report`, `evaluate` and `methods`
add those that are in one kind of file only.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from clipzoo.sections import Section

MOST = 10**15
"""Largest number in a metrics file: sums and squares of it are finite."""
VIDEOS_FILE = "videos.csv"
"""The class predicted for each video, in plots/<recipe>/<set>/: small enough for git."""
VIDEOS_COLUMNS = ("video_id", "label", "predicted")
SINGLE_COLUMN = "single_view_predicted"
"""What a test of several views predicts from a single one."""
RAW_COLUMN = "raw_predicted"
"""What the raw CLIP predicts on a zero-shot set."""
Count = Annotated[int, Field(ge=1, le=MOST)]


class VideoSet(Section):
    """The videos that a metrics file or a prediction file is about."""

    model_config = ConfigDict(extra="ignore")
    dataset: str
    protocol: str
    """Views and lists in words."""
    num_videos: Count
    num_expected: Count
    """Number of videos with those that the ledger of the copy names."""
    videos_sha256: str
    """Fingerprint of the ids (`data.records.videos_sha256`)."""
    missing_sha256: str = ""
    """Digest of lists/<dataset>/missing.csv; '' = there is no such file."""
    expected_sha256: str = ""
    """Fingerprint of the complete set; '' = no video is missing."""


class MadeWith(Section):
    """What a result was made with, in any metrics file; '' = not recorded."""

    model_config = ConfigDict(extra="ignore")
    settings_sha256: str = ""
    """Fingerprint of settings.json."""
    training_sha256: str = ""
    """Fingerprint of the settings that trained the model; fusions of score files have no model."""
    model_sha256: str = ""
    """Digest of the model file."""
    environment: str = ""
    """`machine.environment` of the pre-training, the training and the evaluation, each that differs
    from the one before."""
    checkpoint_sha256: str = ""
    """Digest of the file that `model.checkpoint` named; '' = none."""


class TrainedBy(Section):
    """The run that trained a model, in the metadata of the model's file."""

    model_config = ConfigDict(extra="ignore")
    recipe: str = ""
    """Name of the run."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """`training_settings` of that run; empty in files of earlier versions."""
    split: dict[str, int] = Field(default_factory=dict)
    """`split_settings` of the training, by dotted key, where its result depends on them."""
    environment: str = ""
    """What computed the training (`machine.environment`); '' = nothing was trained."""
    checkpoint_sha256: str = ""
    """Digest of the file that `model.checkpoint` named; '' = none."""
