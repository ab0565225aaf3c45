"""From encoded videos to probabilities: the class text of a model, its scores and its saliency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from clipzoo.clips import selection
from clipzoo.clips.clips import SINGLE_VIEW
from clipzoo.clips.encoding import encode_set
from clipzoo.clips.inputs import Views
from clipzoo.clips.selection import MeasuredSet
from clipzoo.config import Params
from clipzoo.data.targets import label_tensor
from clipzoo.methods import load_model, trained_text
from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText, load_class_text
from clipzoo.runtime.distributed import say, world_size

SCORED_AT_ONCE = 4096
Score = Callable[[Tensor, ClassText], Tensor]
"""features [N, V, ...] and the text of K classes -> probabilities [N, K]."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A set of videos as one model sees it: all that a protocol needs."""

    score: Score
    features: Tensor
    """[N, V, ...] float32 or float16."""
    view_names: Sequence[str]
    """The names of the V views."""
    labels: Tensor
    """[N] int64, or targets [N, K] of 0 and 1."""
    text: ClassText
    """The text of all K classes, as `class_text` gives it."""
    embedding_parts: Callable[[Tensor], Tensor] = lambda features: features
    """What the embedding of a video is the mean of (`Method.embedding_parts`), of the features."""

    def probabilities(self) -> Tensor:
        """The probabilities of all videos from all views, [N, K] float32."""
        return self.score(self.features, self.text)

    def single_view(self) -> Tensor:
        """The features of clip 0's center crop, [N, 1, ...].

        The center crop of several lies up to 2 px off the single crop: the authors round it so.

        Raises:
            ValueError: no such view among `view_names`.
        """
        names = list(self.view_names)
        if SINGLE_VIEW not in names:
            raise ValueError(f"views: found {names}; a single view needs {SINGLE_VIEW!r}")
        index = names.index(SINGLE_VIEW)
        return self.features[:, index : index + 1]  # [N, V, ...] -> [N, 1, ...]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The trained model, and the validation videos of its dataset in the views of `test`."""

    model: Method
    videos: MeasuredSet
    clips: Views
    text: ClassText
    """The class text of its training (`trained_text`)."""
    trained_classes: list[int]
    """Ids of the classes that it was trained on."""


def open_validation(params: Params) -> Validation:
    """Load the trained model and open what `test` measures.

    Raises:
        ListError, StoreError, ConfigError, WeightsError: the list, the frames, the model file or
            the classifier of its training cannot be read, or are those of another run.
    """
    dataset, views = params.data.dataset, params.test
    text = load_class_text(dataset, params.text.templates)
    videos = selection.measured(params, dataset, ["val"], text.num_classes)
    model = load_model(params)
    inputs = model.open_inputs(params, dataset, text)
    trained = selection.training_classes(dataset, params.data.classes, text.num_classes)
    return Validation(
        model=model,
        videos=videos,
        clips=inputs.views(
            videos.records, "val", clips=views.clips, crops=views.crops, dense=views.dense
        ),
        text=trained_text(text, len(trained)),
        trained_classes=trained,
    )


def announce(
    stage: str,
    videos: MeasuredSet,
    text: ClassText,
    about: str,
    params: Params,
    device: torch.device,
) -> None:
    """Print what a stage is going to measure: the videos, and what there is to say `about` them;
    then the backbone, the precision and the machine."""
    say(
        f"{stage}: {len(videos.records)} videos of {videos.dataset}, {text.num_classes} classes, "
        f"{about} ({params.model.arch}), {params.test.precision}, {world_size()} x {device.type}"
    )


def score_set(
    model: Method,
    clips: Views,
    text: ClassText,
    set_name: str,
    *,
    params: Params,
    device: torch.device,
) -> Scored | None:
    """Encode a whole set on all processes (`encode_set`); None on all ranks but 0."""
    features = encode_set(model, clips, set_name, params=params, device=device)
    if features is None:
        return None
    return Scored(
        score=partial(score_videos, model),
        features=features,
        view_names=clips.view_names,
        labels=label_tensor(clips.records, text.num_classes),
        text=text,
        embedding_parts=model.embedding_parts,
    )


@torch.no_grad()
def class_text(model: Method, text: ClassText, device: torch.device) -> ClassText:
    """The text that a model classifies with, on the CPU: that of its own text tower, if trained.

    The text is that of embed_labels, or `trained_text`. The model is on the CPU afterwards.
    """
    found = model.to(device).class_text(text.to(device)).to("cpu")
    model.cpu()
    return found


@torch.no_grad()
def score_videos(model: Method, features: Tensor, text: ClassText) -> Tensor:
    """The method's probabilities, [N, K] float32, of features [N, V, ...] float32 or float16.

    It scores a bounded number of videos at once, on the CPU: `score` has no parameters.
    """
    parts = [model.score(part.float(), text) for part in features.split(SCORED_AT_ONCE)]
    return torch.cat(parts)  # [<= SCORED_AT_ONCE, K] each -> [N, K]


@torch.no_grad()
def saliency(model: Method, scored: Scored) -> Tensor | None:
    """How much each class looks at each frame of a single view, float16 [N, K, T]; None if the
    method does not provide it, or is not to store it."""
    if not model.stores_saliency:
        return None
    parts = []
    for part in scored.single_view().split(SCORED_AT_ONCE):  # [n, 1, T, D]
        weights = model.saliency(part.float(), scored.text)  # [n, 1, K, T]
        if weights is None:
            return None
        parts.append(weights[:, 0].half())  # [n, 1, K, T] -> [n, K, T]
    return torch.cat(parts)
