"""The attributes of videos: the words of a lexicon that a CLIP finds in their frames.

The score of a word is the mean over frames of the cosine of the frame with the word's prompt. The
authors of BIKE (arXiv 2301.00182) published their attributes, found by CLIP ViT-L/14 for whole
videos of Kinetics-400, but neither how they were scored nor the lexicon.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.annotations.lookup import Lookup
from clipzoo.clips.attributes import read_attributes
from clipzoo.clips.encoding import encode_set
from clipzoo.clips.inputs import FrameInputs
from clipzoo.config import AttributesConfig, Params
from clipzoo.data.records import Record, class_name_faults, missing_path, read_labels, read_missing
from clipzoo.data.spec import DatasetSpec, load_spec
from clipzoo.files import ListError, few, raise_all, read_text
from clipzoo.methods.parts.raw import FrameMean, frame_embeddings
from clipzoo.models.clip import load_clip, native_px, open_clip_name
from clipzoo.models.text import embed_class_names
from clipzoo.models.weights import load_weights
from clipzoo.paths import list_file
from clipzoo.runtime.distributed import rank, say
from clipzoo.runtime.progress import progress_bar
from clipzoo.tensors import WeightsError

SCORED_AT_ONCE = 4096
"""Videos: a bound on the memory for scores of a large lexicon."""


class FrameScorer(FrameMean):
    """The vision tower of a CLIP, without training.

    `encode` gives the mean of the L2-normalized frame embeddings, whose product with the embedding
    of a word is the mean of the frames' cosines with it.
    """

    def encode(self, inputs: Tensor) -> Tensor:
        """Mean of the unit frame embeddings, [b, D] float32, of uint8 frames [b, T, 3, S, S]."""
        frames = frame_embeddings(self.visual, self.normalize(inputs)).float()  # [b, T, D]
        return functional.normalize(frames, dim=-1).mean(dim=1)  # [b, T, D] -> [b, D]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A CLIP and the words that it looks for."""

    model: FrameScorer
    lexicon: list[str]
    """W words."""
    words: Tensor
    """Their embeddings, [W, D] float32, L2-normalized."""


def scoring_params(params: Params) -> Params:
    """The parameters of a run, with architecture, input size and frames of the scoring CLIP.

    An architecture of its own is used at its native size; `test.short_side_px` is raised to that if
    it is smaller.
    """
    options, short_side = params.attributes, params.test.short_side_px
    values: dict[str, object] = {"method": "raw", "inputs": "frames"}
    values["num_segments"] = options.num_segments
    if options.arch:
        input_px = native_px(options.arch)
        values |= {"arch": options.arch, "weights": options.weights, "input_px": input_px}
        short_side = max(short_side, input_px)
    return params.model_copy(
        update={
            "model": params.model.model_copy(update=values),
            "test": params.test.model_copy(update={"short_side_px": short_side}),
            "raw": {"fusion": "mean", "test_sampler": "first"},
        }
    )


def open_scorer(options: AttributesConfig, dataset: str) -> Scorer:
    """Load the CLIP and embed the words.

    Args:
        options: arch, weights, lexicon, template and top_k are read.
        dataset: whose class names are the lexicon, unless `options.lexicon` names a file.

    Raises:
        WeightsError: the weights cannot be loaded.
        ListError: the lexicon is at fault, or has fewer words than `top_k`.
    """
    lexicon = read_lexicon(options.lexicon, dataset)
    if len(lexicon) < options.top_k:
        raise ListError(
            f"attributes.top_k: found {options.top_k}; allowed: at most the {len(lexicon)} "
            f"words of {options.lexicon or f'the classes of {dataset}'}"
        )
    if options.arch:
        arch = open_clip_name(options.arch)
        try:
            clip = load_weights(
                arch, options.weights, native_px(arch), activation=None, pixels=None, say=say
            )
        except WeightsError as error:
            text = str(error).replace("model.weights", "attributes.weights")
            raise WeightsError(text) from error
    else:
        clip, meta = load_clip()
        arch = meta["arch"]
    title = f"attributes {dataset}: words"
    with progress_bar(title, len(lexicon), "word", disable=rank() != 0) as bar:
        text = embed_class_names(
            clip,
            arch,
            lexicon,
            [options.template],
            distinct=False,  # the first of equal words is taken
            say=say,
            advance=bar.update,
        )
    words = text.class_embeddings[0]  # [1, W, D] -> [W, D]
    return Scorer(model=FrameScorer(clip).eval(), lexicon=lexicon, words=words.clone())


def read_lexicon(path: str, dataset: str) -> list[str]:
    """The words of a file, one a line, without empty lines; '' = the classes of a dataset.

    Raises:
        ListError: the file cannot be read, has no words, or has some twice; names the lines.
    """
    if not path:
        return read_labels(list_file(dataset, "labels"))
    key = "attributes.lexicon"
    lines = read_text(path, lambda text: ListError(f"{key}: {text}")).splitlines()
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    words = [word for _, word in numbered]
    raise_all(
        f"attributes.lexicon: {path}: wrong words",
        class_name_faults(words, [f"{path}:{number}" for number, _ in numbered]),
    )
    if not words:
        raise ListError(f"attributes.lexicon: {path}: there are no words")
    return words


def find_attributes(
    scorer: Scorer,
    params: Params,
    dataset: str,
    list_name: str,
    records: list[Record],
    *,
    top_k: int,
    device: torch.device,
) -> list[list[str]] | None:
    """The best words of each video, in the order of the records; every process calls this.

    Args:
        scorer: the CLIP and the words.
        params: what `scoring_params` returns.
        list_name: for the progress bar.
        records: N videos.
        top_k: words of each.

    Returns:
        N lists of `top_k` words, the best first; None on all ranks but 0.

    Raises:
        StoreError, ListError: as `FrameInputs.views`.
        InferenceError: some videos cannot be read.
    """
    inputs = FrameInputs(params=params, dataset=dataset, pixels=scorer.model.pixels)
    views = inputs.views(records, list_name)
    title = f"attributes {dataset} {list_name}"
    features = encode_set(scorer.model, views, title, params=params, device=device)
    if features is None:
        return None
    positions = best_words(features[:, 0], scorer.words, top_k)  # [N, 1, D] -> [N, top_k]
    return [[scorer.lexicon[position] for position in row] for row in positions.tolist()]


def best_words(features: Tensor, words: Tensor, top_k: int) -> Tensor:
    """The words with the highest mean cosine to the frames of each video, the best first.

    Among equal ones the first of the lexicon comes first.

    Args:
        features: what `FrameScorer` encodes, [N, D].
        words: embeddings [W, D], L2-normalized.
        top_k: number of words, at most W.

    Returns:
        positions in the lexicon, int64 [N, top_k].
    """
    best = []
    for part in features.float().split(SCORED_AT_ONCE):
        scores = part @ words.T  # [n, D] -> [n, W]
        best.append(scores.argsort(dim=1, descending=True, stable=True)[:, :top_k])
    return torch.cat(best)  # of [n, top_k] -> [N, top_k]


def read_published(
    path: str, records: Sequence[Record], dataset: str
) -> tuple[list[list[str]], str]:
    """The attributes of a list's videos from a file in the authors' form, in the list's order.

    Keys are matched as annotated videos are: by path below any folders or by file name, reduced by
    the dataset's `id_pattern`. Keys of other videos are counted.

    Returns:
        the words, and a note on the keys of videos that are not in the list; '' = there are none.

    Raises:
        ListError: the file is wrong; videos of the list have no key; or a key may be several videos
            or a video has several keys with other words; names every one.
        ConfigError: the dataset's file cannot be read.
    """
    attributes, spec = read_attributes(path), load_spec(dataset)
    lookup = Lookup([record.video_id for record in records], spec)
    keys: dict[str, str] = {}
    surplus, faults = [], []
    for key in attributes:
        found = lookup.copies(key)
        if not found:
            surplus.append(key)
        elif len(found) > 1:
            faults.append(f"{path}: {key}: could be any of {', '.join(found)}")
        elif attributes[keys.setdefault(found[0], key)] != attributes[key]:
            faults.append(f"{path}: {key} and {keys[found[0]]} are both {found[0]}")
    unnamed = [record.video_id for record in records if record.video_id not in keys]
    faults += [f"{path}: missing {video_id}" for video_id in unnamed]
    raise_all(
        f"{path}: {len(unnamed)} of {len(records)} videos of the list have no attributes, and "
        f"{len(faults) - len(unnamed)} keys are ambiguous; allowed: a key for each video of the "
        "list, such as abseiling/ID_000035_000045 (folders do not matter)",
        faults,
    )
    words = [attributes[keys[record.video_id]] for record in records]
    return words, _describe_surplus(surplus, spec, dataset)


def _describe_surplus(keys: Sequence[str], spec: DatasetSpec, dataset: str) -> str:
    """A note on keys that are not videos of the list; '' = there are none."""
    if not keys:
        return ""
    lookup = Lookup([video_id for video_id, _ in read_missing(dataset)], spec)
    others = [key for key in keys if not lookup.copies(key)]
    num_known, path = len(keys) - len(others), missing_path(dataset)
    note = f"{len(keys)} keys are not used: {num_known} are of videos in {path}"
    return note + (f", {len(others)} of videos in no list ({few(others)})" if others else "")
