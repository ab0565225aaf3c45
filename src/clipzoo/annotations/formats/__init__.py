"""Parsers of official annotation files: one module per format.

A new format is a function `Source -> Annotations` and an entry below. Every line becomes an
Annotation or a fault; nothing is skipped silently.
"""

from collections.abc import Callable

from clipzoo.annotations.annotation import Annotations, Source
from clipzoo.annotations.formats.activitynet import parse_activitynet
from clipzoo.annotations.formats.charades import parse_charades
from clipzoo.annotations.formats.folder import parse_folder
from clipzoo.annotations.formats.hmdb51 import parse_hmdb51
from clipzoo.annotations.formats.kinetics import parse_kinetics
from clipzoo.annotations.formats.peers import parse_peer_lists
from clipzoo.annotations.formats.ssv2 import parse_ssv2
from clipzoo.annotations.formats.ucf101 import parse_ucf101

PARSERS: dict[str, Callable[[Source], Annotations]] = {
    "activitynet": parse_activitynet,
    "charades": parse_charades,
    "folder": parse_folder,
    "hmdb51": parse_hmdb51,
    "kinetics": parse_kinetics,
    "peer_lists": parse_peer_lists,
    "ssv2": parse_ssv2,
    "ucf101": parse_ucf101,
}
"""`format` of a dataset -> the function that reads its files."""
