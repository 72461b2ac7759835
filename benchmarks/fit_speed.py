"""Fitting: Levenberg-Marquardt against the paper's two-stage Adam, on the same simulated frames.

``python benchmarks/fit_speed.py`` prints tables; ``--json`` one JSON object with ``rows`` and ``ratios``.

The solvers, so that better computing and a better method can be told apart:

* ``adam``: docs/facts.md 7.5 as the paper's code runs it, on a plain layer of 778 vertices (`reference_hand.py`);
  ``adam_smplx``: the same on smplx from PyPI, where installed, as a check that the yardstick is not slow.
* ``adam_fast_layer``: the same loop on this repository's layer of 778 vertices.
* ``adam_joints_only``: the same loop on the joints-only layer, the hand posed once while the translation
  alone is sought.
* ``adam_converged``: Adam with the prior of ``lm`` added to its objective, run until it stands still.
* ``lm``: at most ten steps, as by default; ``lm_five_steps``: at most five; ``lm_evidence``: with the noise and the
  prior's spread estimated for each frame, where nobody measured them; ``lm_converged``: up to a hundred steps, on
  exactly the objective of ``adam_converged``. ``objective_px2`` of these is that objective's mean.

The prior "shipped" is what ``scripts/fit_*.sh`` pass: ``weights/prior.npz``, and every other option at its default. Its
frames come from a network whose errors have the covariance that the file states. A prior that is a number (rad, one
for all rotations) stands for a network that nobody measured: its frames' errors are 0.25 rad an axis, whatever the
prior, and LM is told 2 px, whatever the noise. The ratios are those of the shipped prior.

Times are medians of interleaved runs: every solver is run once before any is run again, Adam, whose seconds of work
spread little, by default once for each noise level. The paper's objective has no prior: ``adam`` is run once for each
number of frames, noise level and kind of frames, and its row is repeated beside each prior for comparison.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import roma  # noqa: E402
import torch  # noqa: E402

from benchmarks.machine import CLOCKS, describe_machine  # noqa: E402
from benchmarks.scenes.reference_hand import ReferenceHand, smplx_hand  # noqa: E402
from benchmarks.scenes.simulation import Simulated, SimulationOptions, simulate  # noqa: E402
from src.personalization.calibration.population import shipped_population, with_population  # noqa: E402
from src.personalization.fitting.adam import AdamOptions, fit_adam  # noqa: E402
from src.personalization.fitting.fit import FitOptions, PosePriorOptions, fit_frames  # noqa: E402
from src.personalization.solver.status import Status  # noqa: E402
from src.personalization.terms.noise import KeypointNoise  # noqa: E402
from template import HandModel, load_hand_assets  # noqa: E402
from template.kinematics import JointsModel  # noqa: E402
from utils.camera import project  # noqa: E402

#: rad, injected error of the simulated network; px, what LM is told about the keypoints, whatever the noise.
POSE_NOISE, ASSUMED_PX = 0.25, 2.0
SHIPPED = "shipped"
WITHOUT_PRIOR = ("adam", "adam_smplx", "adam_fast_layer", "adam_joints_only")
CONVERGED = AdamOptions(translation_steps=200, pose_steps=1500, pose_rate=1e-2, decay=1e-3)


@dataclass
class SharedObjective:
    """What Adam and LM both minimise: mean squared reprojection error of N frames, px^2, LM's pose prior in its units.

    Attributes:
        hand: the layer; pose (N,16,3,3) at which the prior is centred; betas (N,10); K (N,3,3) px;
            keypoints (N,21,2) px; ratio: standard deviation of the keypoints over that of the prior, px / rad.
    """

    hand: HandModel
    pose: torch.Tensor
    betas: torch.Tensor
    K: torch.Tensor
    keypoints: torch.Tensor
    ratio: float

    def pull(self, rotations: torch.Tensor) -> torch.Tensor:
        """The prior (N,), px^2, of rotations (N,16,3,3): Adam's mean is over 42 coordinates."""
        return safe_log(self.pose.mT @ rotations).square().sum(dim=(1, 2)) * self.ratio**2 / 42

    def value(self, pose: torch.Tensor, transl: torch.Tensor) -> torch.Tensor:
        """The objective (N,), px^2, of pose (N,16,3,3) and transl (N,3) m."""
        with torch.no_grad():
            off = project(self.hand.joints(pose, self.betas, transl), self.K) - self.keypoints
            return off.square().mean(dim=(1, 2)) + self.pull(pose)

    def settled(self, pose: torch.Tensor, transl: torch.Tensor) -> float:
        """Share of frames that gain less than 0.1 % in 100 further small steps from there."""
        again = AdamOptions(translation_steps=0, pose_steps=100, pose_rate=1e-4)
        before = self.value(pose, transl)
        given = (self.betas, self.K, self.keypoints)
        restarted = fit_adam(self.hand.joints, pose, *given, options=again, penalty=self.pull, start=transl)
        return float(((before - restarted.loss) < 1e-3 * before).double().mean())


def safe_log(rotation: torch.Tensor) -> torch.Tensor:
    """Rotation logarithm whose gradient is finite at the identity: there log R = vee(R - R^T) / 2."""
    off = rotation - rotation.mT
    linear = torch.stack([off[..., 2, 1], off[..., 0, 2], off[..., 1, 0]], dim=-1) / 2
    small = linear.detach().norm(dim=-1, keepdim=True) < 1e-3
    filled = torch.where(small[..., None], rotation.new_tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), rotation)
    return torch.where(small, linear, roma.rotmat_to_rotvec(filled))


@dataclass
class Outcome:
    """Pose (N,16,3,3), transl (N,3), the share of frames that the solver says converged, and the mean of the
    objective with the prior where the solver minimises that."""

    pose: torch.Tensor
    transl: torch.Tensor
    converged: float
    objective: float | None = None


@dataclass
class Hands:
    """The hand layers, by what the solvers need: our full layer, ours for fitting, and functions to joints."""

    hand: HandModel
    model: JointsModel
    reference: Callable[..., torch.Tensor]
    smplx: Callable[..., torch.Tensor] | None
    shipped: FitOptions


def solvers(world: Simulated, prior: float | str, hands: Hands) -> dict[str, Callable[[], Outcome]]:
    """The solvers by name, each ready to run on all frames."""
    hand, model = hands.hand, hands.model
    pose, K, keypoints = (value[0].float() for value in (world.predicted, world.K, world.keypoints))
    betas = world.betas.float().expand(len(pose), 10)

    def adam(
        joints_of: Callable, options: AdamOptions = AdamOptions(), penalty: Callable | None = None, once: bool = False
    ) -> Outcome:
        found = fit_adam(joints_of, pose, betas, K, keypoints, options=options, penalty=penalty, pose_once=once)
        return Outcome(found.pose, found.transl, math.nan)

    def lm(evidence_rounds: int = 0, **changes: float) -> Outcome:
        options = hands.shipped
        if prior != SHIPPED:
            options = FitOptions(PosePriorOptions(prior, prior), KeypointNoise(ASSUMED_PX, loss="none"))
        options = replace(options, lm=replace(options.lm, **changes), evidence_rounds=evidence_rounds)
        found = fit_frames(model, pose, betas, K, keypoints, options=options)
        return Outcome(found.pose, found.transl, float((found.status == Status.CONVERGED).double().mean()))

    runs = {
        "adam": lambda: adam(hands.reference),
        "adam_fast_layer": lambda: adam(lambda *given: hand(*given).joints),
        "adam_joints_only": lambda: adam(hand.joints, once=True),
        "lm": lm,
        "lm_five_steps": lambda: lm(max_steps=5),
    }
    if prior != SHIPPED:  # the shipped one has no objective in common with Adam's
        shared = SharedObjective(hand, pose, betas, K, keypoints, ASSUMED_PX / float(prior))

        def with_objective(found: Outcome) -> Outcome:
            return replace(found, objective=float(shared.value(found.pose, found.transl).mean()))

        def adam_converged() -> Outcome:
            found = with_objective(adam(hand.joints, CONVERGED, shared.pull))
            return replace(found, converged=shared.settled(found.pose, found.transl))

        runs["adam_converged"] = adam_converged
        runs["lm_evidence"] = lambda: lm(evidence_rounds=2)
        runs["lm_converged"] = lambda: with_objective(lm(max_steps=100, tolerance=1e-6))
    if hands.smplx is not None and prior == SHIPPED:
        runs["adam_smplx"] = lambda: adam(hands.smplx)
    return runs


def errors(outcome: Outcome, world: Simulated, hand: HandModel) -> tuple[float, float]:
    """Root mean square reprojection error (px per coordinate, to the noisy keypoints) and root-relative MPJPE (mm)."""
    with torch.no_grad():
        joints = hand.joints(outcome.pose, world.betas.float().expand(len(outcome.pose), 10), outcome.transl).double()
    off = project(joints, world.K[0]) - world.keypoints[0]
    truth = world.joints[0]
    relative = (joints - joints[:, :1]) - (truth - truth[:, :1])
    return float(off.square().mean().sqrt()), 1000 * float(relative.norm(dim=-1).mean())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    assets = load_hand_assets(args.mano_dir)
    model = JointsModel(assets, dtype=torch.float32)
    population = shipped_population(assets)
    if population is None:
        raise SystemExit("weights/prior.npz is of another hand than this one; give --mano_dir of its own hand, or none")
    options = with_population(FitOptions(), population)
    hands = Hands(HandModel(assets), model, ReferenceHand(assets), smplx_hand(assets), options)
    error = torch.as_tensor(population.pose_error)
    rows: list[dict[str, Any]] = []
    for frames in args.frames:
        for noise in args.noise:
            for shipped in (True, False):
                priors = [prior for prior in args.priors if (prior == SHIPPED) == shipped]
                as_measured = error if shipped else None
                given = SimulationOptions(noise, 0, POSE_NOISE, (0.7, 0.95), True, pose_covariance=as_measured)
                if priors:
                    world = simulate(assets, 1, frames, given, seed=frames)
                    rows += measure_case(world, frames, noise, priors, args, hands)
    return {
        "machine": describe_machine(),
        "clock": args.clock,
        "pose_noise_rad": POSE_NOISE,
        "ratios": ratios(rows),
        "adam_joints_only_difference_px": same_result(args),
        "rows": rows,
    }


def measure_case(
    world: Simulated, frames: int, noise: float, priors: list[float | str], args: argparse.Namespace, hands: Hands
) -> list[dict[str, Any]]:
    """Rows of one number of frames, noise level and kind of frames."""
    runs: dict[tuple[str, float | str | None], Callable[[], Outcome]] = {}
    for prior in priors:
        for name, run in solvers(world, prior, hands).items():
            if name.endswith("_converged") and frames not in args.converged_frames:
                continue
            runs[name, None if name in WITHOUT_PRIOR else prior] = run
    times: dict[tuple[str, float | str | None], list[float]] = {key: [] for key in runs}
    outcomes: dict[tuple[str, float | str | None], Outcome] = {}
    clock = CLOCKS[args.clock]
    runs[next(key for key in runs if key[0] == "lm")]()  # first use of kernels and threads
    for repeat in range(args.repeats):
        for key, run in runs.items():
            if key[0].endswith("_converged") and repeat > 0:
                continue  # its time is not compared
            for _ in range(3 if key[0] in ("lm", "lm_five_steps") else 1):
                started = clock()
                outcomes[key] = run()
                times[key].append(clock() - started)
    rows = []
    for (name, prior), outcome in outcomes.items():
        reprojection, mpjpe = errors(outcome, world, hands.hand)
        row = {
            "frames": frames,
            "noise_px": noise,
            "prior": prior,
            "solver": name,
            "seconds": statistics.median(times[name, prior]),
            "reprojection_rmse_px": reprojection,
            "mpjpe_mm": mpjpe,
            "converged": None if math.isnan(outcome.converged) else outcome.converged,
            "objective_px2": outcome.objective,
        }
        rows += [{**row, "prior": beside} for beside in (priors if prior is None else [prior])]
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Times of the slower solver over those of the faster at 256 frames, medians over noise levels.

    With the shipped prior, if it was measured; else over all priors.
    """
    rows = [row for row in rows if row["prior"] == SHIPPED] or rows

    def median_ratio(slow: str, fast: str) -> float | None:
        found = [
            a["seconds"] / b["seconds"]
            for a in rows
            for b in rows
            if a["solver"] == slow
            and b["solver"] == fast
            and a["frames"] == b["frames"] == 256
            and (a["noise_px"], a["prior"]) == (b["noise_px"], b["prior"])
        ]
        return statistics.median(found) if found else None

    pairs = [("lm", "adam"), ("lm_five_steps", "adam"), ("lm", "adam_smplx"), ("lm", "adam_fast_layer")]
    pairs += [("lm", "adam_joints_only"), ("adam_joints_only", "adam"), ("adam_joints_only", "adam_fast_layer")]
    pairs += [("adam_smplx", "adam"), ("adam_fast_layer", "adam")]
    return {f"{fast}_over_{slow}_256": median_ratio(slow, fast) for fast, slow in pairs}


def same_result(args: argparse.Namespace) -> dict[str, float]:
    """Largest difference (px, root mean square error of a frame) between ``adam`` and ``adam_joints_only`` in float64,
    where rounding has no time to grow in 300 steps, and the median in float32; 64 frames."""
    assets, found = load_hand_assets(args.mano_dir), {}
    world = simulate(assets, 1, 64, SimulationOptions(ASSUMED_PX, 0, POSE_NOISE, (0.7, 0.95), True), seed=64)
    for dtype in (torch.float64, torch.float32):
        pose, K, keypoints = (value[0].to(dtype) for value in (world.predicted, world.K, world.keypoints))
        given = (pose, world.betas.to(dtype).expand(64, 10), K, keypoints)
        slow = fit_adam(ReferenceHand(assets, dtype=dtype), *given).loss.sqrt()
        fast = fit_adam(HandModel(assets, dtype=dtype).joints, *given, pose_once=True).loss.sqrt()
        found[str(dtype).split(".")[1]] = (slow - fast).abs()
    return {
        "float64_largest": float(found["float64"].max()),
        "float32_median": float(found["float32"].median()),
        "float32_largest": float(found["float32"].max()),
    }


def prior_of(text: str) -> float | str:
    """A number, or "shipped"."""
    return SHIPPED if text == SHIPPED else float(text)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Fitting speed and accuracy: lm against Adam.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--frames", type=int, nargs="+", default=[256])
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="px per coordinate")
    parser.add_argument("--priors", type=prior_of, nargs="+", default=[SHIPPED, 0.15, 0.4], help="shipped, or rad")
    parser.add_argument("--converged_frames", type=int, nargs="*", default=[256], help="where to run adam_converged")
    parser.add_argument("--repeats", type=int, default=1, help="of all; lm is run three times in each")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: on a machine that is not idle")
    parser.add_argument("--mano_dir")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(result["machine"], *(f"{name}: {value:.1f}x" for name, value in result["ratios"].items() if value), sep="\n")
    for row in result["rows"]:
        print(
            "{frames:5d} frames  {noise_px:3.1f} px  prior {prior!s:7s}  {solver:17s} {seconds:9.4f} s "
            "{reprojection_rmse_px:6.2f} px {mpjpe_mm:7.2f} mm".format(**row)
        )


if __name__ == "__main__":
    main()
