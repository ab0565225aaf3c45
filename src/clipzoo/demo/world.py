"""The demo world: plain objects that change, drawn frame by frame.

A class is an object and the end of a change: "a red circle becoming large". Classes come in pairs
that differ only in the direction of time: the frames of one class are those of the other played
backwards, so the set of frames of a video does not reveal which of the two it is.

Everything is drawn from the numbers of a `Scene`. Background, place, size, speed, noise, length,
frame size, frame rate and codec vary at random from video to video.

The same seed gives the same pixels on every CPU. So numbers are computed in float64, in steps that
IEEE 754 rounds correctly (+, -, *, / and square roots, each an operation of its own) and rounded to
pixel values once. Matrix products, sines, logarithms and `np.hypot` differ in their last bits from
one processor to the next and must not be used here, nor NumPy's own distributions of floats.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORLD_SEED = 20
"""The world is fixed, like a published dataset: `seed` in params.yaml does not change it."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (40, 190, 50),
    "blue": (45, 70, 235),
    "yellow": (235, 220, 40),
    "purple": (175, 50, 205),
    "cyan": (50, 215, 225),
}
SHAPES = ("circle", "triangle", "bar", "ring", "cross", "pole")
CHANGES = {"large": "small", "bright": "dark"}
"""End of a change, and the end of the same change played backwards."""
ENDS = tuple(end for pair in CHANGES.items() for end in pair)

FAMILY_OF = {end: forward for forward, backward in CHANGES.items() for end in (forward, backward)}
SIZE_RANGE = {"small": (0.15, 0.19), "large": (0.36, 0.44)}
"""Radius of the object at either end, as a share of the frame's short side."""
STEADY_SIZE = (0.22, 0.3)
"""Radius of an object whose size does not change."""
LIGHT_RANGE = {"dark": (0.28, 0.38), "bright": (1.0, 1.1)}
"""Light on the whole scene at either end: a factor on its pixel values."""
STEADY_LIGHT = (0.65, 0.8)
"""Light on a scene whose light does not change."""


@dataclass(frozen=True)
class ActionClass:
    """An object and the end of its change."""

    color: str
    shape: str
    end: str

    @property
    def name(self) -> str:
        """The label, and the caption of a still that shows the end of the change."""
        return f"a {self.color} {self.shape} becoming {self.end}"

    @property
    def family(self) -> str:
        """The change with its direction left out: `large` (of size) or `bright` (of light)."""
        return FAMILY_OF[self.end]

    @property
    def reversed(self) -> bool:
        """Whether videos of this class are those of the paired class played backwards."""
        return self.end != self.family


def _classes(*objects: str) -> tuple[ActionClass, ...]:
    """All changes of some objects."""
    pairs = [words.split() for words in objects]
    return tuple(ActionClass(color, shape, end) for color, shape in pairs for end in ENDS)


SHAPES_CLASSES = _classes(
    *("red circle", "red triangle", "green triangle", "green bar", "blue bar", "blue ring"),
    *("yellow ring", "yellow cross", "purple cross", "purple pole", "cyan pole", "cyan circle"),
)
UNSEEN_CLASSES = _classes(
    "red ring", "green cross", "blue pole", "yellow circle", "purple triangle", "cyan bar"
)
DATASETS = {"demo_shapes": SHAPES_CLASSES, "demo_unseen": UNSEEN_CLASSES}
"""Classes of each demo dataset, in label order.

They share no object, but every color, shape and change of the unseen ones is seen, each with two
others or more. With fewer objects to learn from, the zero-shot accuracy depends on the seed: it was
54% and 95% for two seeds with six objects in three colors, none of them among the unseen.
"""

ALL_CLASSES = tuple(ActionClass(c, s, e) for c in COLORS for s in SHAPES for e in ENDS)
"""Classes whose stills the stand-in CLIP sees: all objects, as for a web-trained CLIP."""


@dataclass(frozen=True)
class Scene:
    """All numbers that one video is drawn from. Lengths are shares of the frame's short side."""

    color: tuple[float, float, float]
    """Color of the object, RGB 0 to 255."""
    shape: str
    width: int
    height: int
    """Size of the frame in px, even (the codecs store color at half resolution)."""
    radius: NDArray[np.float64]
    """Radius of the object in every frame, [T]."""
    light: NDArray[np.float64]
    """Factor on the pixel values of every frame, [T]."""
    center: NDArray[np.float64]
    """Center of the object, x and y from the middle of the frame, [T, 2]."""
    half_turn: float
    """Rotation of the object: the tangent of half its angle."""
    background: NDArray[np.float64]
    """A coarse pattern that is stretched over the frame, [h, w, 3], RGB 0 to 255."""
    noise: float
    """Standard deviation of the sensor noise, in pixel values."""
    seed: int
    """Seed of the sensor noise."""


def uniform(
    rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...] = ()
) -> NDArray[np.float64]:
    """Uniform random numbers in [low, high), equal on every CPU.

    `rng.uniform` multiplies and adds in compiled code, which some processors round once, not twice.
    """
    return low + (high - low) * np.asarray(rng.random(size))


def sample_scene(action: ActionClass, rng: np.random.Generator, num_frames: int) -> Scene:
    """Draw the numbers of a video of T = `num_frames` (2 or more) frames.

    The object changes towards `action.family`, whatever the direction of `action` is: for the same
    state of the generator, both classes of a pair get the same scene.
    """
    starts, stops = uniform(rng, 0.0, 0.15), uniform(rng, 0.85, 1.0)
    time = np.linspace(0.0, 1.0, num_frames)  # [T]
    # From 0 to 1 between `starts` and `stops`; the object rests before and after.
    progress = np.clip((time - starts) / (stops - starts), 0.0, 1.0)
    radius, light = _course(action.family, rng, progress)
    drift = uniform(rng, -0.06, 0.06, 2)
    center = uniform(rng, -0.06, 0.06, 2) + drift * (time[:, None] - 0.5)  # [T, 2]
    return _scene(action, rng, radius=radius, light=light, center=center, size=_frame_size(rng))


def sample_still(action: ActionClass, rng: np.random.Generator, side_px: int) -> Scene:
    """Draw the numbers of a square still of an even side, whose caption is the name of `action`.

    It shows the end of the change: one frame, which is the first of a reversed class's scene.
    """
    progress = np.array([0.0 if action.reversed else 1.0])
    radius, light = _course(action.family, rng, progress)
    center = uniform(rng, -0.08, 0.08, (1, 2))
    # Videos are seen through crops of half the frame's area or more, so objects appear larger.
    radius = radius * uniform(rng, 1.0, 1.25)
    return _scene(action, rng, radius=radius, light=light, center=center, size=(side_px, side_px))


def _course(
    family: str, rng: np.random.Generator, progress: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radius and light, each [T], where `progress` [T] runs from 0 to 1.

    Numbers are drawn from all ranges, whatever the family is, so that
    those drawn afterwards do not depend on it.
    """
    small, large = uniform(rng, *SIZE_RANGE["small"]), uniform(rng, *SIZE_RANGE["large"])
    dark, bright = uniform(rng, *LIGHT_RANGE["dark"]), uniform(rng, *LIGHT_RANGE["bright"])
    size, light = uniform(rng, *STEADY_SIZE), uniform(rng, *STEADY_LIGHT)
    still = np.ones_like(progress)
    if family == "large":
        return small + (large - small) * progress, light * still
    return size * still, dark + (bright - dark) * progress


def _frame_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height in px, even, of which four in five are landscape."""
    short = 2 * int(rng.integers(36, 49))
    long = 2 * round(short * float(uniform(rng, 1.0, 1.5)) / 2)
    return (long, short) if rng.random() < 0.8 else (short, long)


def _scene(
    action: ActionClass,
    rng: np.random.Generator,
    *,
    radius: NDArray[np.float64],
    light: NDArray[np.float64],
    center: NDArray[np.float64],
    size: tuple[int, int],
) -> Scene:
    """The scene of an action; draws what videos and stills have in common."""
    red, green, blue = COLORS[action.color] + uniform(rng, -15, 15, 3)
    gray = uniform(rng, 60, 170) + uniform(rng, -12, 12, 3)
    pattern = uniform(rng, -1, 1, (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3))
    return Scene(
        color=(float(red), float(green), float(blue)),
        shape=action.shape,
        width=size[0],
        height=size[1],
        radius=radius,
        light=light,
        center=center,
        half_turn=float(uniform(rng, -0.1, 0.1)),
        background=gray + uniform(rng, 5, 30) * pattern,
        noise=float(uniform(rng, 2, 6)),
        seed=int(rng.integers(2**63)),
    )


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        frames [T, H, W, 3], uint8 RGB, in the order of `scene.radius`.
    """
    short = min(scene.width, scene.height)
    # The middles of the pixels, from the middle of the frame, then from the object's center.
    x = (np.arange(scene.width) + 0.5 - scene.width / 2) / short  # [W]
    y = (np.arange(scene.height) + 0.5 - scene.height / 2) / short  # [H]
    dx = x[None, None, :] - scene.center[:, 0, None, None]  # [T, 1, W]
    dy = y[None, :, None] - scene.center[:, 1, None, None]  # [T, H, 1]
    radius = scene.radius[:, None, None]  # [T] -> [T, 1, 1]
    # cos a and sin a from t = tan(a / 2): a sine would differ in its last bits between processors.
    square = scene.half_turn * scene.half_turn
    cos, sin = (1 - square) / (1 + square), 2 * scene.half_turn / (1 + square)
    # The same points in the object's own axes and in radii: turned back by a, then divided.
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius  # [T, H, W]
    # The share of each pixel that the object covers, so that edges are smooth: the distance to its
    # edge in px (radii * radius * short) goes from 1/2 px inside to 1/2 px outside, the share from
    # 1 to 0.
    cover = np.clip(0.5 - outside(scene.shape, u, v) * (radius * short), 0, 1)
    cover = cover[..., None]  # [T, H, W] -> [T, H, W, 1]
    ground = _stretch(scene.background, scene.height, scene.width)  # [h, w, 3] -> [H, W, 3]
    frames = ground + cover * (np.array(scene.color) - ground)  # [T, H, W, 1] -> [T, H, W, 3]
    # The light falls on object and ground; the noise comes from the sensor, whatever the light is.
    frames *= scene.light[:, None, None, None]  # [T] -> [T, 1, 1, 1]
    frames += scene.noise * _noise(scene.seed, frames.shape)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def outside(shape: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far points lie outside a shape of radius 1, in radii: below 0 inside, 0 on its edge.

    The points lie u to the right of the shape's middle and v below it; both arrays have one form.
    """
    # A shape between two edges is the maximum of its distances to both, two shapes in one (the
    # cross) are the minimum, and an outline (the ring) is the absolute distance to a circle, less
    # half of its width.
    if shape == "circle":
        return np.sqrt(u * u + v * v) - 0.9
    if shape == "ring":
        return np.abs(np.sqrt(u * u + v * v) - 0.75) - 0.22
    if shape == "triangle":  # a corner on top; of its three edges, one is level
        a, b = np.abs(u) * (np.sqrt(3) / 2), v * 0.5
        return np.maximum(v, a - b) - 0.5
    a, b = np.abs(u), np.abs(v)
    if shape == "bar":
        return np.maximum(a - 1, b - 0.35)
    if shape == "pole":
        return np.maximum(a - 0.35, b - 1)
    if shape == "cross":
        return np.minimum(np.maximum(a - 1, b - 0.3), np.maximum(b - 1, a - 0.3))
    raise AssertionError(shape)


def _noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Nearly normal noise of mean 0 and standard deviation 1: the sum of four random bytes.

    A byte has mean 255 / 2 and variance (256 * 256 - 1) / 12. Sums of integers are exact.
    """
    parts = np.random.default_rng(seed).integers(0, 256, (4, *shape), dtype=np.uint8)
    total = parts.sum(0, dtype=np.int16)  # [4, ...] -> [...]
    return (total - 510) / np.sqrt(4 * (256 * 256 - 1) / 12)


def _stretch(pattern: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """A coarse pattern [h, w, 3], bilinear, corners on corners, over [height, width, 3]."""
    for axis, length in ((1, width), (0, height)):
        last = pattern.shape[axis] - 1  # at least 1
        at = np.arange(length) * last / (length - 1)  # [length], in steps of the pattern
        before = np.minimum(at.astype(int), last - 1)  # [length]
        share = (at - before)[:, None]  # [length] -> [length, 1], along rows
        share = share if axis == 1 else share[:, None]  # [length, 1, 1], down columns
        # [h, w, 3] -> [h, width, 3] -> [height, width, 3]
        pattern = pattern.take(before, axis) * (1 - share) + pattern.take(before + 1, axis) * share
    return pattern
