"""Finger postures of people in pictures: open palms, signs and letters, gestures, fists, pinches, grasps."""

from __future__ import annotations

import numpy as np

from template.stand_in.grasps import FINGER_ORDER, GRASPS, clip_angles, grasp_angles

#: MCP, PIP, DIP flexion, degrees, of a finger in a sign.
_STRAIGHT, _CURLED, _HALF, _HOOKED, _BENT = (0, 2, 1), (80, 98, 60), (40, 45, 25), (8, 85, 48), (72, 8, 4)
#: Thumb in a sign: opposition, spread, CMC, MCP, IP, degrees.
_THUMBS = (
    (0, 14, -8, -4, -6),  # out
    (4, -24, 0, 4, 4),  # beside the palm
    (45, -18, 18, 45, 40),  # across the palm
    (69, 3, -15, 31, 35),  # over curled fingers
    (40, 6, 2, 10, 14),  # half opposed
)
#: Thumb tip on a finger's tip: that finger's spread, MCP, PIP, DIP, then the thumb; the first with a round finger, the
#: second with a bent one. Found once by minimising the tips' distance on the mean hand.
_PINCHES = {
    "index": ((0, 50, 25, 15, 55, 0, 6, 5, 10), (0, 47, 58, 35, 55, 2, 5, 5, 10)),
    "middle": ((2, 56, 34, 20, 60, 8, 11, 6, 9), (0, 48, 59, 36, 56, 1, 8, 6, 11)),
    "ring": ((8, 52, 35, 22, 67, 14, 18, 8, 9), (2, 40, 58, 37, 61, 6, 17, 11, 13)),
    "little": ((20, 41, 25, 16, 62, 8, 26, 11, 10), (7, 31, 55, 36, 52, 2, 29, 17, 15)),
}
_NAMES, _SHARES = ("sign", "pinch", "grasp", "open", "fist", "between"), (0.34, 0.16, 0.2, 0.18, 0.05, 0.07)


def random_angles(generator: np.random.Generator) -> np.ndarray:
    """The 21 anatomical angles (`template.stand_in.grasps.FINGER_ORDER`), radians, of a random posture."""
    kind = _NAMES[generator.choice(len(_NAMES), p=np.array(_SHARES) / sum(_SHARES))]
    if kind == "between":
        first, second = (_posture(_NAMES[generator.integers(5)], generator) for _ in range(2))
        angles = first + generator.uniform(0.2, 0.8) * (second - first)
    else:
        angles = _posture(kind, generator)
    spread = np.radians(generator.uniform(1, 9))
    common = np.tile(generator.normal(0, 0.6, 4), 4)  # people bend their fingers together
    noise = np.concatenate([0.7 * generator.normal(size=16) + common, generator.normal(size=5)])
    return clip_angles(angles + spread * noise)


def _posture(kind: str, generator: np.random.Generator) -> np.ndarray:
    if kind == "sign":
        return _sign(generator)
    if kind == "pinch":
        return _pinch(generator)
    if kind == "grasp":
        names = [name for name in GRASPS if name not in ("open", "spread", "flat", "fist")]
        return grasp_angles(names[generator.integers(len(names))], generator.uniform(0, 1))
    if kind == "fist":
        return grasp_angles("fist", generator.uniform(0.8, 1))
    return grasp_angles(("open", "spread", "flat")[generator.integers(3)], generator.uniform(0, 1))


def _sign(generator: np.random.Generator) -> np.ndarray:
    """Each finger straight or folded on its own, as in digits and letters."""
    fold = (_CURLED, _CURLED, _CURLED, _HALF, _HOOKED, _BENT)[generator.integers(6)]
    straight = generator.random(4) < 0.55
    rows = []
    wide = generator.uniform(0, 1)
    for number in range(4):
        flexion = _STRAIGHT if straight[number] else fold
        spread = (10, 1, -9, -17)[number] * wide if straight[number] else 0
        rows.append([spread, *(np.array(flexion) * generator.uniform(0.85, 1.1))])
    thumb = _THUMBS[generator.integers(len(_THUMBS))]
    return np.radians(np.concatenate([*rows, thumb]).astype(np.float64))


def _pinch(generator: np.random.Generator) -> np.ndarray:
    """Thumb and one finger (or all of them) meet; the others are straight, relaxed or curled."""
    finger = FINGER_ORDER[generator.choice(4, p=[0.45, 0.25, 0.15, 0.15])]
    round_one, bent = (np.array(row, float) for row in _PINCHES[finger])
    meeting = round_one + generator.uniform(0, 1) * (bent - round_one)
    angles = grasp_angles(("spread", "relaxed", "power_cylinder")[generator.integers(3)], generator.uniform(0, 0.9))
    place = FINGER_ORDER.index(finger)
    if generator.random() < 0.25:  # an O: the other fingers join
        for other in range(4):
            angles[4 * other : 4 * other + 4] = np.radians(meeting[:4] + [0, 3 * other, 2 * other, 2 * other])
    angles[4 * place : 4 * place + 4] = np.radians(meeting[:4])
    angles[16:] = np.radians(meeting[4:])
    return angles
