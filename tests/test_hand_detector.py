"""Detector, keypoint rating, their calibration, and a training by the clock that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from datasets.synthetic.world import bank as banks
from datasets.synthetic.world import mixing
from datasets.synthetic.world.background import SIDE
from datasets.synthetic.world.cutout import SIZE
from datasets.synthetic.world.hands import LABEL, default_betas
from src.engine.checkpoint import ModelCard, load_network, read_checkpoint, save_checkpoint
from src.engine.world import calibration as world_calibration
from src.engine.world import train as train_world
from src.models import build_model
from src.models.hand_detector import STRIDES, HandDetector, assign, cell_centres, decode, detector_loss
from src.models.keypoint_rating import RIGHT_WITHIN, keypoint_is_right
from src.models.lifting import PoseHead
from src.personalization.calibration.population import SHIPPED_PRIOR
from src.personalization.fitting.fit import PosePriorOptions
from src.photos.detector import own_hands
from src.photos.detector.detection import Detection, disagreement
from src.photos.detector.finders import beliefs_of
from src.photos.detector.own_hands import OwnHands, RatedReader
from src.photos.detector.people import how_many
from template import HandModel, load_hand_assets
from utils.low_bits import LEAST

CUTOUTS, WALLS = 12, 3


@pytest.fixture
def small_bank(tmp_path, monkeypatch) -> Path:
    """Two shards of squares on stripes in the bank's layout: what is trained on does not matter here."""
    monkeypatch.setattr(banks, "CUTOUTS_A_SHARD", CUTOUTS)
    monkeypatch.setattr(banks, "BACKGROUNDS_A_SHARD", WALLS)
    monkeypatch.setattr(train_world, "_BANK_AT_LEAST", CUTOUTS)
    generator = np.random.default_rng(0)
    root = tmp_path / "bank"
    root.mkdir()
    for number in (0, 1):
        rgba = np.zeros((CUTOUTS, SIZE, SIZE, 4), np.uint8)
        labels = np.zeros(CUTOUTS, LABEL)
        labels["keypoints"] = generator.uniform(45, 115, (CUTOUTS, 21, 2))
        labels["xyz"], labels["K"] = generator.normal(0, 0.05, (CUTOUTS, 21, 3)) + [0, 0, 0.6], np.diag([300, 300, 1.0])
        rgba[:, 40:120, 40:120] = (200, 120, 90, 255)
        walls = generator.integers(0, 255, (WALLS, SIDE, SIDE, 3), np.uint8)
        for path, array in zip(banks.shard_paths(root, number), (rgba, walls, labels), strict=True):
            np.save(path, array)
    return root


def test_cells_answer_for_the_smallest_box_near_whose_centre_they_lie():
    """Against a loop over cells and boxes."""
    boxes = torch.tensor([[[30.0, 40, 70, 80], [20, 30, 150, 160], [300, 300, 310, 310], [-60, -60, 200, 200]]])
    weight = torch.tensor([[1.0, 1.0, -1.0, 0.0]])
    index, ignore = assign(boxes, weight, 256)
    place = 0
    for stride, (low, high) in zip(STRIDES, ((0, 52), (44, 116), (100, 1e9)), strict=True):
        for x, y in cell_centres(256 // stride, 256 // stride, stride, torch.device("cpu")).tolist():
            best, smallest = -1, float("inf")
            for number, box in enumerate(boxes[0].tolist()):
                side = box[2] - box[0]
                away = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2))
                if (
                    weight[0, number] > 0
                    and low <= side < high
                    and away < max(1.5 * stride, 0.22 * side)
                    and side < smallest
                ):
                    best, smallest = number, side
            assert index[0, place] == best
            if best >= 0:
                assert not ignore[0, place]
            place += 1
    assert place == index.shape[1]
    assert ignore[0, 0] and not (index == 3).any() and not (index == 2).any()  # the ignored box is not asked


def test_a_right_answer_costs_little_and_is_decoded():
    detector = HandDetector().eval()
    boxes = torch.tensor([[[40.0, 50, 80, 90], [120, 100, 240, 220]]])
    weight = torch.ones(1, 2)
    index, _ = assign(boxes, weight, 256)
    logits = torch.full(index.shape, -9.0)
    answers = torch.zeros(*index.shape, 4)
    answers[..., 2:] = 1
    for number in (0, 1):
        here = index[0] == number
        assert here.any()
        logits[0, here] = 9.0
        answers[0, here] = boxes[0, number]
    output = {"class_logits": logits, "boxes": answers}
    loss, _ = detector_loss(output, boxes, weight, 256)
    wrong, _ = detector_loss(output | {"class_logits": -logits}, boxes, weight, 256)
    assert loss < 1e-3 and wrong > 1
    hands = decode(output, detector)[0]
    assert len(hands["boxes"]) == 2 and (hands["scores"] > 0.99).all()
    order = hands["boxes"][:, 0].argsort()
    assert torch.equal(hands["boxes"][order], boxes[0])


def test_boxes_of_every_size_have_a_cell():
    for side in (8.0, 20.0, 48.0, 80.0, 110.0, 250.0, 600.0):
        for middle in (3.0, 100.0, 250.0):
            box = torch.tensor([[[middle - side / 2, middle - side / 2, middle + side / 2, middle + side / 2]]])
            assert (assign(box, torch.ones(1, 1), 256)[0] == 0).any(), side


def test_detector_is_small_and_is_read_by_its_card(tmp_path):
    detector = HandDetector()
    assert 2 * sum(p.numel() for p in detector.state_dict().values()) < 5e6
    assert detector(torch.zeros(1, 3, 256, 256))["boxes"].shape == (1, 32**2 + 16**2 + 8**2, 4)


def test_platt_is_the_most_likely_sigmoid():
    """Against scipy's minimiser of the same likelihood."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4000, generator=generator)
    happened = torch.rand(4000, generator=generator) < (0.5 * logits - 0.7).sigmoid()
    scale, offset = world_calibration.fit_platt(logits, happened)
    x, y = logits.double().numpy(), happened.numpy()

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, np.where(y, -1, 1) * (w[0] * x + w[1])).sum())

    best = minimize(loss, [1.0, 0.0]).x
    assert abs(scale - best[0]) < 1e-3 and abs(offset - best[1]) < 1e-3
    assert world_calibration.expected_error((scale * logits + offset).sigmoid(), happened) < 0.03
    assert world_calibration.expected_error(torch.full((10,), 0.75), torch.arange(10) < 5) == pytest.approx(0.25)


def test_a_keypoint_is_right_within_a_tenth_of_the_box():
    truth = torch.zeros(1, 21, 2)
    found = truth.clone()
    found[0, 0, 0], found[0, 1, 1] = 50 * RIGHT_WITHIN - 0.1, 50 * RIGHT_WITHIN + 0.1
    right = keypoint_is_right(found, truth, torch.tensor([50.0]))
    assert right[0, 0] and not right[0, 1] and right[0, 2:].all()


def test_crops_hold_the_box_and_flips_are_left_hands(small_bank):
    torch.manual_seed(0)
    bank = banks.ResidentBank(small_bank, "cpu", 100)
    assert bank.refresh() == 2 and bank.cutouts == 2 * CUTOUTS and bank.refresh() == 0
    crops = mixing.mix_crops(bank, 64, 96, left=0.5)
    side = (crops.keypoints.amax(1) - crops.keypoints.amin(1)).amax(1)
    assert crops.image.shape == (64, 3, 96, 96) and crops.image.abs().max() <= 1
    assert 0.2 < crops.is_left.float().mean() < 0.8 and crops.is_hand.float().mean() > 0.7
    inside = ((crops.keypoints[crops.is_hand] > 0) & (crops.keypoints[crops.is_hand] < 95)).float().mean()
    assert inside > 0.85 and (side / crops.box_side).median() < 1.5
    # Left hands are mirrored: the triangle of three keypoints turns the other way.
    source = bank.keypoints[: bank.cutouts]

    def turns(points: torch.Tensor) -> torch.Tensor:
        a, b = points[:, 9] - points[:, 0], points[:, 5] - points[:, 0]
        return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

    areas = turns(source) / (source.amax(1) - source.amin(1)).amax(1) ** 2
    seen = turns(crops.keypoints) / crops.box_side**2
    for value, left in zip(seen, crops.is_left, strict=True):
        assert (areas - (-value if left else value)).abs().min() < 1e-4
    # Depths are the cut-out's, whatever way it is turned; a box is as many metres large in the crop as in the cut-out.
    rows = (crops.depth[:, None] - bank.depth[None, : bank.cutouts]).abs().amax(2).argmin(1)
    torch.testing.assert_close(crops.depth, bank.depth[rows])
    own = (source.amax(1) - source.amin(1)).amax(1)[rows] * bank.pixel[rows]
    torch.testing.assert_close(crops.box_side / 96 * crops.extent, own)


def test_pictures_boxes_are_squares_around_hands(small_bank):
    torch.manual_seed(1)
    bank = banks.ResidentBank(small_bank, "cpu", 100)
    bank.refresh()
    pictures = mixing.mix_pictures(bank, 24, 128)
    extent = pictures.boxes[..., 2:] - pictures.boxes[..., :2]
    assert torch.allclose(extent[..., 0], extent[..., 1], atol=1e-3)
    assert set(pictures.weight.unique().tolist()) <= {-1.0, 0.0, 1.0} and (pictures.weight == 1).any()
    assert (pictures.weight < 0).all(1).any()  # pictures without a hand
    middle = (pictures.boxes[..., :2] + pictures.boxes[..., 2:]) / 2
    asked = middle[pictures.weight == 1]
    assert ((asked > -64) & (asked < 192)).all()


def test_beyond_its_frame_a_picture_is_black():
    torch.manual_seed(0)
    framed, frame = mixing._frame(torch.ones(200, 3, 40, 40), 0.8, 0.3)
    seen = 0
    for picture, ((left, top), (right, bottom)) in zip(framed, frame.int().tolist(), strict=True):
        expected = torch.zeros(40, 40)
        expected[top : bottom + 1, left : right + 1] = 1
        assert torch.equal(picture, expected.expand(3, -1, -1)) and min(left, top) >= 0 and right - left >= 15
        seen += bool((expected == 0).any())
    assert 80 < seen < 190
    whole, _ = mixing._frame(torch.ones(8, 3, 40, 40), 0.0, 0.3)
    assert (whole == 1).all()
    # A hand whose keypoints lie beyond the frame is not asked for.
    points = torch.full((1, 21, 2), 5.0)
    shown, edges = torch.tensor([True]), torch.tensor([[[10.0, 0.0], [39.0, 39.0]]])
    assert mixing._weight(points, [], 40, shown, edges) == -1 and mixing._weight(points + 10, [], 40, shown, edges) == 1


def options(bank, out, *more, task="keypoints", size="64"):
    words = f"--task {task} --bank {bank} --out {out} --batch_size 4 --size {size} --max_cutouts 24 "
    words += "--validation_cutouts 24 --validation_pictures 128 --device cpu --backbone mobilenet_v3_small"
    return train_world.get_args_parser().parse_args([*words.split(), *more])


@pytest.mark.parametrize("task", ["keypoints", "detector"])
def test_training_goes_on_and_its_weights_are_read(task, small_bank, tmp_path, monkeypatch):
    size = {"keypoints": "64", "detector": "128"}[task]
    steps = []
    plain = train_world.STEPS[task]
    monkeypatch.setitem(train_world.STEPS, task, lambda *a: steps.append(1) or plain(*a))
    args = options(small_bank, tmp_path, "--max_steps", "4", task=task, size=size)
    args.stop_after = 1e-9
    assert train_world.train(args) is None and not steps
    args.stop_after = None
    weights = train_world.train(args)
    assert len(steps) == 4 and weights is not None
    network, card, _ = load_network(weights)
    assert card.input_size == int(size)
    scores = json.loads((tmp_path / f"{task}.json").read_text())
    assert scores["steps"] == 4
    found = network(torch.zeros(1, 3, int(size), int(size)))
    if task == "keypoints":
        assert card.model == "pose_2d" and card.crop_scale == mixing.CROP_SCALE
        assert ((found["keypoint_confidence"] > 0) & (found["keypoint_confidence"] < 1)).all()
        assert network.rating.scale.ne(1).any()
    else:
        assert len(decode(found, network)) == 1 and 0 < float(network.threshold) < 1
    assert train_world.train(args) == weights and len(steps) == 4  # nothing is left to do


def test_weights_that_are_no_numbers_are_not_saved(small_bank, tmp_path, monkeypatch):
    plain, steps = train_world.STEPS["keypoints"], []

    def step(*given):
        steps.append(1)
        loss, parts = plain(*given)
        return loss * (torch.nan if len(steps) == 3 else 1), parts

    train_world.train(options(small_bank, tmp_path, "--max_steps", "1"))
    before = read_checkpoint(tmp_path / "keypoints.pt")["model"]
    monkeypatch.setitem(train_world.STEPS, "keypoints", step)
    with pytest.raises(RuntimeError, match="not finite after 5 steps; .*keypoints.pt is as it was saved last"):
        train_world.train(options(small_bank, tmp_path, "--max_steps", "5", "--weight_decay", "0.5"))
    after = read_checkpoint(tmp_path / "keypoints.pt")["model"]
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_bank_is_of_one_seed_and_says_betas_of_the_default_hand(small_bank, tmp_path, monkeypatch):
    monkeypatch.setattr(banks, "run_jobs", lambda *_: None)
    banks.write_bank(tmp_path / "new", 5, seed=3)
    with pytest.raises(ValueError, match="bank.json: this bank is of .*'seed': 3.* not of .*'seed': 4"):
        banks.write_bank(tmp_path / "new", 5, seed=4)
    betas = torch.randn(100, 10, generator=torch.Generator().manual_seed(0))
    flat = torch.eye(3).expand(100, 16, 3, 3)
    fine = HandModel(load_hand_assets("template/stand_in_2.npz")).joints(flat, betas)
    default = HandModel(load_hand_assets("template/stand_in.npz"))
    off = []
    for given in (betas, torch.from_numpy(default_betas(betas.numpy()))):
        joints = default.joints(flat, given)
        off.append(float(((joints - joints[:, :1]) - (fine - fine[:, :1])).norm(dim=-1).mean()))
    assert off[1] < 0.6e-3 < 1e-3 < off[0]
    bank = banks.ResidentBank(small_bank, "cpu", 24)
    bank.refresh()
    assert np.allclose(bank.betas.numpy(), default_betas(np.zeros((24, 10))), atol=1e-6) and bank.betas.abs().max() > 0


def test_only_what_a_checkpoint_lacks_is_trained(small_bank, tmp_path):
    """The rest stays as it was to the bit, statistics of normalisation and calibration with it."""
    rated = {"backbone": "mobilenet_v3_small", "rated": True}
    card = ModelCard("pose_2d", options=rated, input_size=64, crop_size=64, crop_scale=1.5)
    before = card.build()
    before.rating.scale.copy_(torch.tensor([0.5, 0.6, 0.7]))
    save_checkpoint(tmp_path / "before.pt", card, before)
    run = small_bank, tmp_path / "run", "--max_steps", "3", "--only_fresh", "--init_from"
    args = options(*run, str(tmp_path / "before.pt"))
    (tmp_path / "run").mkdir()
    torch.manual_seed(1)
    network, card, _ = load_network(train_world.train(args))
    old, new = before.state_dict(), network.state_dict()
    assert card.options["lifts"] and set(old) < set(new)
    for name, value in old.items():
        stored = value.half().to(value.dtype) if value.is_floating_point() else value
        if name.startswith("rating.") and value.numel() >= LEAST:  # in eight bits a row
            torch.testing.assert_close(new[name], value, atol=float(value.abs().max()) / 127, rtol=0)
        else:
            torch.testing.assert_close(new[name], stored, atol=0, rtol=0)
    moved = read_checkpoint(tmp_path / "run" / "keypoints.pt")["model"]
    assert all(torch.equal(moved[name], value) for name, value in old.items())
    assert moved["rating.depth.joined.4.weight"].abs().max() > 0 and moved["rating.depth.place"].abs().max() > 0
    assert moved["rating.posing.place"].abs().max() > 0
    args = options(*run, str(tmp_path / "run/keypoints.pt"))
    args.out = str(tmp_path)
    with pytest.raises(ValueError, match="nothing would be trained"):
        train_world.train(args)


def test_depths_of_a_crop_are_metres_beside_the_picture_s_points():
    """Twice the box, twice the metres of a pixel less; a left hand's are of the picture as it is."""
    keypoints = np.random.default_rng(0).uniform(0, 100, (2, 21, 2))
    depth, nothing = np.random.default_rng(1).normal(0, 0.03, (2, 2, 21)), np.zeros(2)
    looks = [
        own_hands.Readings(keypoints, nothing, nothing, nothing, one, pixel)
        for one, pixel in zip(depth, (np.array([0.001, 0.002]), np.array([0.003, 0.002])), strict=True)
    ]
    worlds = own_hands.in_space(keypoints, *looks)
    assert worlds[0][:, 2] == pytest.approx(depth[:, 0].mean(axis=0))
    assert np.ptp(worlds[1][:, :2], axis=0) == pytest.approx(0.002 * np.ptp(keypoints[1], axis=0))
    assert disagreement(keypoints[0], worlds[0]) == pytest.approx(0, abs=1e-12)
    shown = [Detection(p, np.ones(21), False, 1.0, w, only_depths=True) for p, w in zip(keypoints, worlds, strict=True)]
    assert how_many(shown * 8) is None
    assert how_many([replace(hand, only_depths=False) for hand in shown] * 8) is not None
    assert own_hands.in_space(keypoints, looks[0].rows(np.array([0, 1])), looks[1]._replace(depth=None)) == [None, None]


def test_a_network_says_poses_of_anybody_or_of_somebody():
    """A known shape is given back and changes the pose; where it is NaN nobody is known. Two looks are averaged."""
    torch.manual_seed(0)
    head = PoseHead(8, 4).eval()
    seen = torch.randn(3, 8), torch.randn(3, 21, 4), torch.randn(3, 21, 2), torch.randn(3, 21)
    betas, depth = torch.randn(3, 10), 0.03 * torch.randn(3, 21)
    betas[1] = torch.nan
    anybody, told = head(*seen, depth=depth), head(*seen, depth=depth, betas=betas)
    assert torch.equal(told["betas"][[0, 2]], betas[[0, 2]]) and torch.equal(told["betas"][1], anybody["betas"][1])
    assert torch.equal(told["pose"][1], anybody["pose"][1])
    assert (told["pose"] - anybody["pose"])[[0, 2]].abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(told["pose"] @ told["pose"].mT, torch.eye(3).expand(3, 16, 3, 3), atol=1e-5, rtol=0)
    poses, nothing = anybody["pose"].detach().numpy(), np.zeros(3)
    looks = [
        own_hands.Readings(np.zeros((3, 21, 2)), nothing, nothing, nothing, pose=one)
        for one in (poses, poses @ _turn(0.4))
    ]
    for mean, one in zip(own_hands.mean_pose(*looks), poses, strict=True):
        np.testing.assert_allclose(mean, one @ _turn(0.2), atol=1e-5)
    assert own_hands.mean_pose(looks[0], looks[1]._replace(pose=None)) == [None] * 3


def _turn(angle):
    return Rotation.from_rotvec([0, angle, 0]).as_matrix()


def test_plain_pose_2d_has_no_rating():
    """Checkpoints from before load: the rating is there only when asked for."""
    names = build_model("pose_2d", backbone="mobilenet_v3_small").state_dict()
    assert not any(name.startswith("rating") for name in names)


def test_an_empty_bank_is_named(tmp_path):
    command = [
        sys.executable,
        "-m",
        "src.engine.world.train",
        "--task",
        "detector",
        "--bank",
        str(tmp_path),
        "--out",
        str(tmp_path),
        "--wait_minutes",
        "0",
        "--max_cutouts",
        "600",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and "no whole shard" in done.stderr


def test_own_hands_maps_boxes_and_keypoints_to_the_picture(tmp_path, monkeypatch):
    """Stubbed networks that answer in their input's pixels: a left hand's answers come back mirrored and scaled."""
    detector, rated = tmp_path / "detector.pt", tmp_path / "keypoints.pt"
    card = ModelCard("hand_detector", input_size=256, crop_size=256, crop_scale=1.0)
    save_checkpoint(detector, card, card.build())
    options = {"backbone": "mobilenet_v3_small", "rated": True}
    card = ModelCard("pose_2d", options=options, input_size=64, crop_size=64, crop_scale=1.5)
    save_checkpoint(rated, card, card.build())
    hands = OwnHands(detector, rated, threshold=0.5)
    logits, boxes = torch.full((2, 5), -9.0), torch.zeros(2, 5, 4)
    logits[0, 2], logits[1, 4] = 9.0, 8.0
    boxes[0, 2] = torch.tensor([31.5, 63.5, 95.5, 127.5])
    boxes[1, 4] = torch.tensor([107.5, 117.5, 127.5, 137.5])  # of the view that shows twice as much
    hands.detector.forward = lambda image: {"class_logits": logits, "boxes": boxes}
    proposals, probability = hands.proposals(np.zeros((512, 512, 3), np.uint8))
    assert proposals[0] == pytest.approx([127.5, 191.5, 128])  # twice the detector's pixels, centres at integers
    assert len(proposals) == 2 and proposals[1] == pytest.approx([255.5 - 4 * 10, 255.5, 80])
    assert probability == pytest.approx(torch.tensor([9.0, 8.0]).sigmoid().numpy())
    monkeypatch.setattr(own_hands, "EVIDENCE", (0.0, 1.0, 0.0, 0.0))  # the least probability of the looks
    looks = []

    def answer(image: torch.Tensor) -> dict[str, torch.Tensor]:
        spot = torch.full((len(image), 21, 2), 31.5)  # the middle of the crop
        spot[:, 0, 0] = 31.5 + 10
        looks.append(len(image))
        return {
            "keypoints_2d": spot, "keypoint_confidence": torch.full((len(image), 21), 0.8),
            "is_hand": torch.tensor([0.9, 0.2 if len(looks) == 2 else 0.9, 0.9, 0.9])[: len(image)],
            "is_left": torch.tensor([0.7, 0.1, 0.7, 0.1])[: len(image)],
            "depth": torch.linspace(-0.05, 0.05, 21).expand(len(image), -1), "extent": torch.full((len(image),), 0.3),
        }  # fmt: skip

    reader = hands.reader
    reader.network.forward = answer
    # Ten pixels to the right in the mirrored crop (64 px show 1.5 * 128 px) are thirty to the left here.
    read = reader.read(np.zeros((512, 512, 3), np.uint8), np.array([[127.5, 191.5, 128.0]]), True)
    assert read.keypoints[0, 5] == pytest.approx([127.5, 191.5])
    assert read.keypoints[0, 0] == pytest.approx([127.5 - 30, 191.5])
    # One of two proposals is said to be no hand at the first look; the other's mirror image is a right hand.
    found = hands(np.zeros((512, 512, 3), np.uint8))
    assert looks == [1, 2, 4, 2]  # one alone, then all places, both mirror images of each, and all again
    assert len(found) == 1 and found[0].is_left and found[0].score == pytest.approx(0.9)
    assert read.pixel == pytest.approx(0.3 / (1.5 * 128))  # m across the crop over its px in the picture
    # Its 3D points are those in the picture, not mirrored, with the depths.
    assert found[0].only_depths and found[0].world[:, 2] == pytest.approx(np.linspace(-0.05, 0.05, 21), abs=1e-6)
    assert disagreement(found[0].keypoints_2d, found[0].world) == pytest.approx(0, abs=1e-12)
    assert np.argmin(found[0].world[:, 0]) == 0 and np.ptp(found[0].world[:, 1]) == pytest.approx(0)
    with pytest.raises(ValueError, match="uint8 RGB"):
        hands(np.zeros((5, 5), np.uint8))


SIGNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "pictures" / "signs"


@pytest.mark.skipif(not SIGNS.is_dir(), reason="needs ../shared/data/pictures/signs")
def test_shipped_networks_find_real_hands_and_none_where_none_is():
    hands = own_hands.open_own_hands(Path(__file__).parents[1] / "weights")
    names = ("4_img_1132.jpg", "5_img_1133.jpg", "9_img_1127.jpg", "7_img_1135.jpg", "8_img_1136.jpg")
    images = [cv2.imread(str(SIGNS / name)) for name in names if (SIGNS / name).is_file()]
    found = [hands(np.ascontiguousarray(image[..., ::-1])) for image in images]
    assert len(images) > 2 and all(len(one) == 1 for one in found)
    for one, image in zip(found, images, strict=True):
        assert one[0].score >= own_hands.MIN_SCORE and not one[0].is_left  # all of them show right hands
        assert 0.4 * image.shape[0] < one[0].size < 1.1 * image.shape[0]
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    assert hands(noise) == [] and hands(np.full((90, 90, 3), 128, np.uint8)) == []


def test_several_looks_at_one_hand_decide_its_side_together():
    points = np.random.default_rng(0).uniform(0, 50, (21, 2))

    def look(shift: float, score: float, left: float) -> own_hands.Look:
        said = np.full((16, 3, 3), left)  # each of the mirror image that it takes for a right hand
        return own_hands.Look(Detection(points + shift, np.ones(21), left > 0, score, pose=said), left)

    found = own_hands.one_each([look(1, 0.8, 3.0), look(0, 0.9, -1.0), look(200, 0.7, -2.0), look(2, 0.75, -1.5)])
    assert [(hand.score, hand.is_left) for hand in found] == [(0.9, True), (0.7, False)]
    assert [float(hand.pose[0, 0, 0]) for hand in found] == [3.0, -2.0]  # of the surest look of that side
    # Evidence 3 - 1 - 1.5 for a left hand, and 2 for a right one, as a probability of that side.
    odds = [hand.sure_of_side / (1 - hand.sure_of_side) for hand in found]
    assert np.log(odds) == pytest.approx([own_hands.SIDE_SLOPE * 0.5, own_hands.SIDE_SLOPE * 2])


def test_poses_are_believed_of_their_own_hand_model_only():
    assets = load_hand_assets()
    finder = SimpleNamespace(
        world_std=own_hands.DEPTH_STD, prediction=PosePriorOptions(0.3, 0.2), hand_hash=assets.hash
    )
    assert beliefs_of(finder, assets) == {"world_std": finder.world_std, "prediction": finder.prediction}
    finder.hand_hash = "another"
    assert beliefs_of(finder, assets) == {"world_std": finder.world_std}
    shipped = own_hands.open_own_hands(SHIPPED_PRIOR.parent)
    assert beliefs_of(shipped, assets)["prediction"].root_std == own_hands.POSE_STD[0]


def test_a_network_without_rating_is_named():
    card = ModelCard("pose_2d", options={"backbone": "mobilenet_v3_small"})
    with pytest.raises(ValueError, match="no rating"):
        RatedReader(card.build(), card)
