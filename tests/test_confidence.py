"""The confidence of the fair recipe: pairs of one person, a head that sees the betas, batches that hold such pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from datasets.loading import BatchLoader
from options.run_options import get_args_parser
from src.engine.config import build_objective
from src.engine.step_log import StepLog
from src.models import build_model
from src.models.losses import ranking_loss
from src.models.mano_networks import ConfidenceHead
from src.models.objectives import ConfidenceObjective, WithinPersonConfidence, average_of_person, ranked_pairs
from src.personalization.calibration.images import average_weights
from template import HandModel, load_hand_assets


def test_ranking_loss_against_a_slow_loop() -> None:
    torch.manual_seed(0)
    confidence, error, person = torch.randn(12), torch.rand(12), torch.randint(0, 3, (12,))
    total, right, count = 0.0, 0, 0
    for i in range(12):
        for j in range(i):
            if person[i] != person[j]:
                continue
            better, worse = (i, j) if error[i] < error[j] else (j, i)
            gap = float(confidence[better] - confidence[worse])
            total += math.log1p(math.exp(-gap)) * abs(float(error[i] - error[j]))
            right, count = right + (gap > 0), count + 1
    loss, accuracy = ranking_loss(confidence, error, person)
    assert float(loss) == pytest.approx(total / count, rel=1e-5)
    assert float(accuracy) == pytest.approx(right / count)
    loss, accuracy = ranking_loss(confidence, error, torch.arange(12))
    assert float(loss) == 0 and math.isnan(float(accuracy))


def test_average_weighs_as_the_calibration_does() -> None:
    torch.manual_seed(1)
    betas, confidence, person = torch.randn(9, 10), torch.randn(9), torch.tensor([4, 4, 7, 4, 7, 7, 4, 9, 4])
    averaged = average_of_person(betas, confidence, person).numpy()
    for number in (4, 7, 9):
        rows = np.flatnonzero(person.numpy() == number)
        weights = average_weights(len(rows), "confidence", confidence.numpy()[rows])
        assert np.allclose(averaged[rows], weights @ betas.numpy()[rows], atol=1e-5)


def test_head_learns_what_a_linear_branch_cannot() -> None:
    """Guesses shrunk towards the mean by an unknown amount: the further one is the better one."""
    generator = torch.Generator().manual_seed(2)
    truth = 2 * torch.randn(64, 1, 10, generator=generator)
    betas = (truth * torch.rand(64, 8, 1, generator=generator)).flatten(0, 1)
    truth, person = truth.expand(-1, 8, -1).flatten(0, 1), torch.arange(64).repeat_interleave(8)
    objective = WithinPersonConfidence(HandModel(load_hand_assets()))
    torch.manual_seed(0)
    head, context = ConfidenceHead(4, dropout=0.0), torch.randn(512, 4, generator=generator)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    batch = {"betas": truth, "subject_id": person}
    for _ in range(60):
        loss, terms = objective.loss({"confidence": head(context, betas), "betas": betas}, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        scores = objective.scores({"confidence": head(context, betas), "betas": betas}, batch)
    wrong, pairs = scores["ranking_error"]
    assert float((wrong * pairs).sum() / pairs.sum()) < 0.15
    assert scores["weighted_mm"].mean() < 0.8 * scores["mean_mm"].mean()


def test_old_linear_branch_still_loads() -> None:
    names = build_model("mano_baseline_conf", "fair", backbone="mobilenet_v3_small").state_dict()
    assert {name for name in names if name.startswith("confidence")} == {"confidence.weight", "confidence.bias"}
    wide = build_model("mano_baseline_conf", "fair", backbone="mobilenet_v3_small", linear_confidence=False).eval()
    K = torch.tensor([[100.0, 0, 31.5], [0, 100.0, 31.5], [0, 0, 1]]).expand(2, 3, 3)
    output = wide(torch.zeros(2, 3, 64, 64), K=K)
    assert output["confidence"].shape == (2,) and isinstance(wide.confidence, ConfidenceHead)


class _People(torch.utils.data.Dataset):
    """240 samples of ten people in a row."""

    def __len__(self) -> int:
        return 240

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"index": np.int64(index), "person": np.int64(index // 24)}


@pytest.mark.parametrize("world_size", (1, 2))
def test_images_of_a_person_share_a_batch(world_size: int) -> None:
    seen, orders = [], []
    for rank in range(world_size):
        loader = BatchLoader(_People(), 48 // world_size, shuffle=True, rank=rank, world_size=world_size)
        loader.keep_together(np.arange(240) // 24, 8)
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            batches = list(loader)
            assert all(len(batch["person"].unique()) <= 6 for batch in batches)
            orders.append(torch.cat([batch["index"] for batch in batches]))
        seen.append(orders[-1])
        assert not torch.equal(orders[-1], orders[-2])
    assert sorted(torch.cat(seen).tolist()) == list(range(240))


def test_ranked_pairs_against_a_slow_loop() -> None:
    torch.manual_seed(3)
    confidence, error, person = torch.randn(9), torch.randint(0, 4, (9,)).float(), torch.randint(0, 2, (9,))
    share, count = ranked_pairs(confidence, error, person)
    for i in range(9):
        pairs = [j for j in range(9) if error[i] != error[j] and person[i] == person[j]]
        wrong = sum((confidence[i] > confidence[j]) != (error[i] < error[j]) for j in pairs)
        assert int(count[i]) == len(pairs) and float(share[i] * count[i]) == pytest.approx(wrong)


def test_images_of_nobody_known_are_not_ranked_within_a_person() -> None:
    words = "--phase train --model mano_baseline_conf --dataset freihand --confidence".split()
    hand = HandModel(load_hand_assets())
    with pytest.raises(ValueError, match="freihand does not say who is in which image.*--confidence pairs"):
        build_objective(get_args_parser().parse_args([*words, "within_person"]), hand, hand)
    assert build_objective(get_args_parser().parse_args([*words, "pairs"]), hand, hand).images_of_person == 1


@pytest.mark.parametrize("objective", [ConfidenceObjective(), WithinPersonConfidence(HandModel(load_hand_assets()))])
def test_a_last_batch_of_one_image_spoils_no_epoch(objective: ConfidenceObjective) -> None:
    """Its pairs are none; the score is the share of all pairs, whatever the batches."""
    generator = torch.Generator().manual_seed(5)
    error, confidence = torch.rand(5, generator=generator), torch.rand(5, generator=generator)
    log, totals = StepLog(torch.device("cpu")), torch.zeros(2)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 5)):
        output = {"confidence": confidence[rows], "betas": error[rows, None].expand(-1, 10)}
        count = len(error[rows])
        batch = {"betas": torch.zeros(count, 10), "subject_id": torch.zeros(count, dtype=torch.int64)}
        loss, terms = objective.loss(output, batch)
        log.add({"loss": loss, **terms}, 0, torch.arange(count))
        wrong, pairs = objective.scores(output, batch)["ranking_error"]
        totals += torch.stack([(wrong * pairs).sum(), pairs.sum()])
    right = [(confidence[i] > confidence[i + 1]) == (error[i] < error[i + 1]) for i in (0, 2)]
    assert log.means()["accuracy"] == pytest.approx(sum(map(float, right)) / 2)
    assert float(totals[0] / totals[1]) == pytest.approx(1 - sum(map(float, right)) / 2)
    assert all(math.isfinite(value) for value in log.means().values())
