"""How many people's hands a set of detections may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from photo_cases import needs_detections, real_detections

from src.personalization.solver.status import CalibrationError
from src.photos.detector.detection import Detection, disagreement
from src.photos.detector.people import how_many
from src.photos.detector.refusal import MIN_SIDE
from src.photos.hands import check_one_person


def hands_of(people: int, pictures: int, generator: np.random.Generator) -> list[Detection]:
    """3D hands whose seven lengths differ by 7% from person to person and by 5.7% from picture to picture."""
    found = []
    for _ in range(people):
        person = generator.normal(0, 0.07, 7)
        for _ in range(pictures):
            lengths = 0.08 * np.exp(person + generator.normal(0, 0.057, 7))
            world = np.zeros((21, 3))
            world[[9, 17], 0] = world[[9, 17], 1] = lengths[5:]  # palm length and breadth, the wrist and index at zero
            world[[9, 17]] /= np.sqrt(2)
            for finger, base in enumerate((1, 5, 9, 13, 17)):
                world[base + 1 : base + 4] = world[base] + np.outer([1, 2, 3], [0, 0, lengths[finger] / 3])
            world[17] += world[5]
            found.append(Detection(300 * world[:, :2], np.ones(21), False, 0.99, world))
    return found


def test_how_many_people_holds_for_drawn_hands() -> None:
    generator = np.random.default_rng(0)
    for people, pictures in ((1, 20), (2, 10), (5, 4), (20, 1)):
        counts = [how_many(hands_of(people, pictures, generator)) for _ in range(40)]
        holds = [one.least <= people <= one.most for one in counts]
        assert np.mean(holds) > 0.85, (people, counts)
        refused = np.mean([one.least > 1 for one in counts])
        assert refused <= 0.05 if people == 1 else people < 20 or refused > 0.4, (people, refused)
    assert how_many(hands_of(1, 7, generator)) is None  # of so few it cannot be told
    assert how_many([replace(hand, world=None) for hand in hands_of(2, 9, generator)]) is None


def test_3d_points_that_contradict_the_picture_tell_nothing() -> None:
    (hand,) = hands_of(1, 1, np.random.default_rng(0))
    assert disagreement(hand.keypoints_2d, hand.world) == pytest.approx(0, abs=1e-12)
    bent = replace(
        hand, keypoints_2d=hand.keypoints_2d + 300 * np.array([0.01, -0.01]) * (-1) ** np.arange(21)[:, None]
    )
    assert 0.007 < disagreement(bent.keypoints_2d, bent.world) < 0.011  # 10 mm but for scale and place
    assert how_many([bent] * 20) is None and how_many([hand] * 20).most == 1


def test_strangers_do_not_become_one_person(caplog: pytest.LogCaptureFixture) -> None:
    generator = np.random.default_rng(1)
    strangers = hands_of(30, 1, generator)
    with pytest.raises(CalibrationError, match=r"not one person's hands: .* over 30 hands .* to 30 people.*accept_c"):
        check_one_person(strangers)
    assert check_one_person(strangers, accept_conflict=True).most == 30 and "one shape is made of all" in caplog.text
    check_one_person(strangers[:5])
    assert "whether all 5 hands are one person's cannot be told" in caplog.text


@needs_detections
def test_real_strangers_are_noticed_and_real_persons_are_not() -> None:
    hands, generator = real_detections(), np.random.default_rng(0)
    for who in ("one_person_ten_poses", "one_left_hand_known_camera", "crops_of_three_people 0108"):
        own = [hand for name, hand in hands if name == who and hand.score >= MIN_SIDE]
        for count in (10, len(own)):
            draw = [own[row] for row in generator.permutation(len(own))[:count]]
            assert (found := how_many(draw)) is None or found.least == 1, (who, found)
    for group in ("many_people", "signs_small", "mixed"):
        found = how_many([hand for name, hand in hands if name.startswith(group) and hand.score >= MIN_SIDE])
        assert found.least > 1 and found.most == found.hands, (group, found)
