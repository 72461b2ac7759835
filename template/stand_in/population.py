"""Adult hands: sampled measures, the deformation they cause, and the shape directions (PCA).

From the source: the means and standard deviations of hand length and hand breadth of women and men are
those of the 1988 Anthropometric Survey of U.S. Army Personnel (ANSUR: Gordon et al., NATICK/TR-89/044,
1989; hand detail in Greiner, "Hand anthropometry of U.S. Army personnel", NATICK/TR-92/011, 1991), as
commonly quoted, rounded to half a millimetre. The reports themselves were not at hand when this was
written; the men's figures were held against the first 29 rows of the public ANSUR II file of 2012
(breadth 89.5 +- 3.7, length 196.8 +- 11.3, palm 118.8 +- 7.3 mm; correlation of length with breadth
0.75, with palm length 0.92), the women's against nothing. Both sexes count equally here.

Assumed by us: normal distributions within each sex, all correlations of `_CORRELATION` (the one of
length and breadth somewhat below that of the 29 men), the thickness and girth figures, the contrast of
finger and palm length, and the small independent variation of single fingers and phalanges.

Women's hands are relatively narrower and thinner, and within a sex breadth and thickness follow length
only in part: so proportions tell something of size, and size is more than one scale factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from template.stand_in.skeleton import MANO_FINGERS, bone_frame, finger_joints, joint_positions, tip_positions
from template.stand_in.skinning import point_weights, smoothstep

#: Millimetres: mean and standard deviation of women and men (ANSUR 1988, rounded).
HAND_LENGTH_MM = {"women": (180.5, 9.7), "men": (194.0, 9.8)}
HAND_BREADTH_MM = {"women": (79.5, 3.8), "men": (90.5, 4.2)}

#: Assumed, relative to the mean hand: palm and finger thickness and finger girth; (mean, spread).
_THICKNESS = {"women": (0.930, 0.060), "men": (1.070, 0.060)}
_GIRTH = {"women": (0.940, 0.048), "men": (1.060, 0.048)}

#: Within a sex: length, breadth, thickness, girth (assumed).
_CORRELATION = np.array([
    [1.00, 0.62, 0.30, 0.42],
    [0.62, 1.00, 0.48, 0.68],
    [0.30, 0.48, 1.00, 0.55],
    [0.42, 0.68, 0.55, 1.00],
])  # fmt: skip

MEAN_LENGTH_MM = np.mean([mean for mean, _ in HAND_LENGTH_MM.values()])
MEAN_BREADTH_MM = np.mean([mean for mean, _ in HAND_BREADTH_MM.values()])


@dataclass(frozen=True)
class Measures:
    """One person's hand relative to the mean hand (all factors, 1 = mean)."""

    palm_length: float
    breadth: float
    thickness: float
    fingers: np.ndarray  # (5,) length of each finger, order of MANO_FINGERS
    proximal: float  # share of the first phalanx in the finger
    girth: np.ndarray  # (5,)
    taper: float  # girth at the tip over girth at the base


def sample_measures(rng: np.random.Generator, count: int) -> list[Measures]:
    """`count` adults, every second one a woman."""
    people = []
    mixing = np.linalg.cholesky(_CORRELATION)
    for number in range(count):
        sex = ("women", "men")[number % 2]
        normal = mixing @ rng.standard_normal(4)
        length, breadth = (
            (table[sex][0] + table[sex][1] * value) / mean
            for table, value, mean in (
                (HAND_LENGTH_MM, normal[0], MEAN_LENGTH_MM),
                (HAND_BREADTH_MM, normal[1], MEAN_BREADTH_MM),
            )
        )
        thickness = _THICKNESS[sex][0] * (1 + _THICKNESS[sex][1] * normal[2])
        girth = _GIRTH[sex][0] * (1 + _GIRTH[sex][1] * normal[3])
        # Bigger hands have slightly longer fingers for their palm; most of the contrast is personal.
        contrast = 0.20 * (length - 1) + 0.018 * rng.standard_normal()
        radial = 0.012 * rng.standard_normal()  # index against ring and little (the 2D:4D ratio)
        single = 0.007 * rng.standard_normal(5) + np.array([radial, 0, -radial, -radial, 0.0])
        single[2] += 0.018 * rng.standard_normal()  # the little finger varies most
        single[4] += 0.022 * rng.standard_normal()  # and the thumb
        single[1] = 0.0
        people.append(
            Measures(
                palm_length=length * (1 - 0.95 * contrast),
                breadth=breadth,
                thickness=thickness,
                fingers=length * (1 + contrast + single),
                proximal=1 + 0.012 * rng.standard_normal(),
                girth=girth * (1 + 0.008 * rng.standard_normal(5)),
                taper=1 + 0.03 * rng.standard_normal(),
            )
        )
    return people


class Deformer:
    """Turns the template into a person's hand: a smooth blend of one affine map a bone."""

    def __init__(self, vertices: np.ndarray) -> None:
        self.vertices = vertices
        self.weights = point_weights(vertices)
        self.joints, self.tips = joint_positions(), tip_positions()

    def _palm(self, points: np.ndarray, person: Measures) -> np.ndarray:
        """Palm and wrist: length along x from the wrist, breadth along z, thickness along y."""
        relative = points - self.joints[0]
        beyond = relative[..., 0] > 0  # forearm side: no longer when the palm is
        x = np.where(beyond, relative[..., 0] * (0.5 + 0.5 * person.palm_length), relative[..., 0] * person.palm_length)
        # The wrist follows breadth a little less than the knuckles do.
        towards = smoothstep(-relative[..., 0] / 0.08)
        breadth = person.breadth * towards + (0.25 + 0.75 * person.breadth) * (1 - towards)
        return self.joints[0] + np.stack([x, relative[..., 1] * person.thickness, relative[..., 2] * breadth], axis=-1)

    def joints_of(self, person: Measures) -> np.ndarray:
        """The person's joints (16, 3) at rest, metres."""
        joints = self.joints.copy()
        for number, finger in enumerate(MANO_FINGERS):
            for joint, place in self._links(number, finger, person)[0]:
                joints[joint] = place
        return joints

    def _links(self, number: int, finger: str, person: Measures) -> tuple[list[tuple[int, np.ndarray]], list[float]]:
        """The finger's (joint number, the person's place of it) and the stretch of each link."""
        numbers = finger_joints(finger)
        place = self._palm(self.joints[numbers[0]], person)
        ends = [self.joints[numbers[1]], self.joints[numbers[2]], self.tips[number]]
        lengths = np.array([np.linalg.norm(e - self.joints[n]) for n, e in zip(numbers, ends)])
        share = np.array([person.proximal, 1 / person.proximal, 1.0])
        scale = share * person.fingers[number] * lengths.sum() / (share * lengths).sum()
        places, scales = [], []
        for part, joint in enumerate(numbers):
            places.append((joint, place))
            scales.append(scale[part])
            place = place + bone_frame(finger, part)[0] * lengths[part] * scale[part]
        return places, scales

    def __call__(self, person: Measures) -> np.ndarray:
        """The person's vertices (V, 3) at rest, metres."""
        shaped = self.weights[:, :1] * self._palm(self.vertices, person)
        for number, finger in enumerate(MANO_FINGERS):
            places, scales = self._links(number, finger, person)
            for part, ((joint, place), stretch) in enumerate(zip(places, scales)):
                along, dorsal, across = bone_frame(finger, part)
                relative = self.vertices - self.joints[joint]
                girth = person.girth[number] * (1 + (person.taper - 1) * (part - 1))
                depth = 0.5 * girth + 0.5 * person.thickness
                moved = place + sum(
                    np.outer(relative @ axis * factor, axis)
                    for axis, factor in ((along, stretch), (dorsal, depth), (across, girth))
                )
                shaped += self.weights[:, joint, None] * moved
        return shaped


def shape_space(vertices: np.ndarray, count: int = 600, seed: int = 0) -> dict[str, np.ndarray]:
    """Shape directions of `count` sampled adults.

    Returns:
        v_template (778,3), the mean adult hand; shapedirs (778,3,10), metres for one standard deviation
        (betas ~ N(0,1) give back the population); hands (count,778,3) and joints (count,16,3), the
        people themselves; explained (10,), the cumulative share of their variance.
    """
    rng = np.random.default_rng(seed)
    deform = Deformer(vertices)
    people = sample_measures(rng, count)
    hands = np.array([deform(person) for person in people])
    joints = np.array([deform.joints_of(person) for person in people])
    mean = hands.mean(axis=0)
    _, values, rows = np.linalg.svd((hands - mean).reshape(count, -1), full_matrices=False)
    deviations = values / np.sqrt(count - 1)
    directions = (rows[:10] * deviations[:10, None]).reshape(10, -1, 3)
    tip = np.argmin(vertices[:, 0])  # a positive coefficient makes the hand longer, or else wider
    directions *= np.where(directions[:, tip, 0] > 0, -1.0, 1.0)[:, None, None]
    return {
        "v_template": mean,
        "shapedirs": np.moveaxis(directions, 0, 2),
        "hands": hands,
        "joints": joints,
        "explained": np.cumsum(deviations**2)[:10] / (deviations**2).sum(),
    }
