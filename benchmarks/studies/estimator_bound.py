"""``python -m benchmarks.studies.estimator_bound``: how near ``benchmarks/estimators.py`` can come to the truth at all.

The oracle knows the simulator (`estimator_simulation`): how people and poses are spread, of every error its size and
which part of it all images of a person share, and how the simulated estimator's own fit makes rotations and a place of
its guess and of the noisy points that it sees. Of HaMeR-, WiLoR- and SAM-3D-Body-like results it sees these and the
betas (which the last does not write), of MediaPipe-like ones the points, and 3D points of free scale with the noise
that they are written with. Its posterior covariance, linearised at the truth, gives the mean error that nobody can go
below by much.

Printed for each estimator and treatment of `benchmarks.estimators`: mean camera-space and zero-pose error of product
and oracle, both also less the released hand's (camera space) and less that of the mean of the betas (zero pose),
in per cent, ``stated``, the zero-pose error that the covariance in the product's identity says to expect, and how often
its 95% interval holds the hand's length. ``--seed`` takes several seeds: per cent also as mean over them, with its 95%
interval (Student's t). A seed's people, and the ruler's errors, are the same for every estimator.
"""

from __future__ import annotations

import argparse

import numpy as np
import roma
import torch
from scipy.stats import t as student

from benchmarks.estimators import RULER, WITH_POSE, Measure, simulated_people
from benchmarks.scenes.estimator_simulation import CLAIMS, LENS, WORLD, Estimated, estimate
from src.estimators.records import place as placed
from src.personalization.terms.hand_size import length_gradient
from src.personalization.terms.pose_prior import inverse_right_jacobian
from template import HandAssets, HandModel, load_hand_assets
from template.kinematics import JointsModel

TREATMENTS = ("ours", "ours_ruler", "true_shape")
#: What all images of a person share: betas, the error of the guessed pose, of the keypoints, of the guessed betas.
BETAS, POSE_ERROR, POINT_ERROR, BETA_ERROR = slice(0, 10), slice(10, 58), slice(58, 100), slice(100, 110)
#: Of one image: local rotation increments (rad), place (m); of MediaPipe-like ones the guess's errors, its betas, the
#: scale of its points and their place.
POSE, PLACE, GUESS, GUESSED_BETAS, SCALE, SHIFT = (
    slice(0, 48), slice(48, 51), slice(51, 99), slice(99, 109), slice(109, 110), slice(110, 113),
)  # fmt: skip
#: m, of a coordinate of MediaPipe-like 3D points, as `estimate` writes them.
POINT_STD = 0.006
#: Which unknowns, and the rows (F,R,...) for them.
Rows = list[tuple[slice, torch.Tensor]]


class Information:
    """Squared rows of linearised measurements, of F images with ``own`` unknowns each and 110 that they share."""

    def __init__(self, images: int, own: int) -> None:
        self.own = torch.zeros(images, own, own, dtype=torch.float64)
        self.cross = torch.zeros(images, own, 110, dtype=torch.float64)
        self.shared = torch.eye(110, dtype=torch.float64)  # the priors

    def add(self, own: Rows, shared: Rows, weight: float) -> None:
        """Rows (F,R,unknowns), by unknowns; weight: 1/variance."""
        count = [*own, *shared][0][1].shape[:2]
        a = torch.zeros(*count, self.own.shape[1], dtype=torch.float64)
        b = torch.zeros(*count, 110, dtype=torch.float64)
        for part, rows in own:
            a[..., part] = rows
        for part, rows in shared:
            b[..., part] = rows
        self.own += weight * a.mT @ a
        self.cross += weight * a.mT @ b
        self.shared += weight * (b.mT @ b).sum(dim=0)

    def draws(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors of the posterior: shared (D,110), and of each image (D,F,own)."""
        factor = torch.linalg.cholesky(self.own)
        carried = torch.cholesky_solve(self.cross, factor)
        whole = torch.linalg.cholesky(self.shared - (self.cross.mT @ carried).sum(dim=0))
        noise = torch.randn(count, 110, 1, generator=generator, dtype=torch.float64)
        shared = torch.linalg.solve_triangular(whole.mT, noise, upper=True)[..., 0]
        noise = torch.randn(count, *self.own.shape[:2], 1, generator=generator, dtype=torch.float64)
        own = torch.linalg.solve_triangular(factor.mT, noise, upper=True)[..., 0]
        return shared, own - torch.einsum("fus,ds->dfu", carried, shared)


def jacobians(hand: HandModel, pose: torch.Tensor, betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints by local rotation increments (F,63,48) m/rad and by betas (F,63,10) m."""
    x, zero = torch.zeros(48, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)

    def joints(turn: torch.Tensor, shape: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        a, b, c = turn.view(16, 3).unbind(-1)
        none = torch.zeros_like(a)
        skew = torch.stack([none, -c, b, c, none, -a, -b, a, none], dim=-1).view(16, 3, 3)
        return hand((at + at @ skew)[None], shape[None], zero[None]).joints.reshape(63)

    each = torch.func.vmap(torch.func.jacfwd(joints, argnums=(0, 1)), in_dims=(None, None, 0))
    by_pose, by_betas = each(x, betas, pose)
    return by_pose, by_betas


def pixel_jacobian(joints: torch.Tensor, K: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """Pixels (F,42,U) by what moves the joints (F,21,3) m: moved (F,63,U) m per unknown; K (F,3,3) px."""
    moved, depth = moved.unflatten(1, (21, 3)), joints[..., 2:]
    slope = (moved[..., :2, :] - (joints[..., :2] / depth)[..., None] * moved[..., 2:, :]) / depth[..., None]
    return (slope * K[:, None, [0, 1], [0, 1], None]).flatten(1, 2)


def informed(result: Estimated, person: int, name: str, assets: HandAssets, treatment: str,
             turns: tuple[torch.Tensor, torch.Tensor], guessed: tuple[torch.Tensor, torch.Tensor],
             ) -> Information:  # fmt: skip
    """All that is measured of a person; Jacobians of the true hand, and of the one that the estimator laid down."""
    world, claims, points = result.world, CLAIMS[name], name == "mediapipe"
    frames, shared, alone = len(turns[0]), claims.shared, 1 - claims.shared
    info = Information(frames, SHIFT.stop if points else PLACE.stop)
    place = torch.eye(3, dtype=torch.float64).repeat(21, 1).expand(frames, 63, 3)
    joints, K, seen = world.joints[person], world.K[person], world.keypoints[person]
    std = torch.full((48,), claims.finger_std, dtype=torch.float64)
    std[:3] = claims.root_std
    noise = claims.keypoint_std_box * (seen.amax(dim=1) - seen.amin(dim=1)).amax(dim=-1)[:, None, None]
    truly = pixel_jacobian(joints, K, torch.cat([turns[0], place, turns[1]], dim=-1)) / noise
    # What the estimator makes of points (of unit variance) and of its guess of the pose: one step of its own fit.
    lens = K.clone()
    lens[:, :2, :2] *= LENS[name]
    about = joints - joints[:, :1]
    at = [placed(a, b, c) for a, b, c in zip(about.numpy(), seen.numpy(), lens.numpy(), strict=True)]
    laid = about + torch.as_tensor(np.array(at))[:, None]
    by_fit = pixel_jacobian(laid, lens, torch.cat([guessed[0], place], dim=-1)) / noise
    prior = torch.zeros(51, dtype=torch.float64)
    prior[POSE] = std**-2
    gain = torch.linalg.inv(by_fit.mT @ by_fit + torch.diag(prior))
    of_points, of_guess = gain @ by_fit.mT, gain[..., POSE] * prior[POSE]
    ten = torch.eye(10, dtype=torch.float64).expand(frames, 10, 10)
    say = [(BETAS, claims.shape_gain * ten), (BETA_ERROR, claims.shape_shared_std * ten)]
    info.add([(GUESSED_BETAS, -ten)] if points else [], say, claims.shape_std**-2)
    if points:
        unit = torch.eye(48, dtype=torch.float64).expand(frames, 48, 48)
        info.add([(GUESS, unit / std[:, None])], [(POSE_ERROR, -(shared**0.5) * unit)], 1 / alone)
        info.add(
            [(POSE, truly[..., :48]), (PLACE, truly[..., PLACE])],
            [(BETAS, truly[..., 51:]), (POINT_ERROR, shared**0.5 * torch.eye(42).double().expand(frames, 42, 42))],
            1 / alone,
        )
        by_pose = guessed[0] @ of_guess[:, POSE]
        by_shape = guessed[1] - guessed[0] @ (of_points @ pixel_jacobian(laid, lens, guessed[1]) / noise)[:, POSE]
        written = [(POSE, by_pose), (GUESS, by_pose), (GUESSED_BETAS, by_shape), (SCALE, about.reshape(frames, 63, 1)),
                   (SHIFT, place)]  # fmt: skip
        info.add(written, [], POINT_STD**-2)
        free = torch.eye(4, dtype=torch.float64).expand(frames, 4, 4)
        info.add([(SCALE, free[..., :1]), (SHIFT, free[..., 1:])], [], 1.0)
    else:
        spread = of_points @ of_points.mT + (of_guess * std**2) @ of_guess.mT
        white = torch.linalg.inv(torch.linalg.cholesky(spread))
        own = of_points @ truly[..., :51]
        own[..., POSE] += of_guess
        errors = [(POINT_ERROR, shared**0.5 * white @ of_points), (POSE_ERROR, shared**0.5 * white @ (of_guess * std))]
        info.add([(POSE, white @ own[..., :48]), (PLACE, white @ own[..., PLACE])],
                 [(BETAS, white @ of_points @ truly[..., 51:]), *errors], 1 / alone)  # fmt: skip
    # How poses are spread.
    vectors = roma.rotmat_to_rotvec(world.pose[person][:, 1:])
    chart = inverse_right_jacobian(vectors.permute(2, 1, 0)).permute(3, 2, 0, 1)
    spread = torch.as_tensor(assets.hands_components).double() * WORLD.pose_spread
    whiten = torch.linalg.inv(spread.T)
    fingers = torch.zeros(frames, 45, 48, dtype=torch.float64)
    for joint in range(15):
        part = slice(3 * joint, 3 * joint + 3)
        fingers[:, :, 3 + part.start : 3 + part.stop] = whiten[:, part] @ chart[:, joint]
    info.add([(POSE, fingers)], [], 1.0)
    if treatment == "ours_ruler":
        gradient = length_gradient(JointsModel(assets), world.betas[person : person + 1], "hand")[1][0]
        info.shared[BETAS, BETAS] += torch.outer(gradient, gradient) / RULER**2
    if treatment == "true_shape":
        info.shared[BETAS, BETAS] += 1e10 * torch.eye(10)
    return info


def oracle(assets: HandAssets, name: str, result: Estimated, draws: int = 100) -> dict[str, list[float]]:
    """Treatment -> mean camera-space and zero-pose error (mm) that the oracle expects."""
    hand, generator = HandModel(assets, dtype=torch.float64, plain=True), torch.Generator().manual_seed(0)
    flat = torch.eye(3, dtype=torch.float64).expand(1, 16, 3, 3)
    found: dict[str, list[list[float]]] = {treatment: [] for treatment in TREATMENTS}
    for person, betas in enumerate(result.world.betas):
        turns = jacobians(hand, result.world.pose[person], betas)
        guessed = jacobians(hand, result.world.pose[person], result.betas[person].mean(dim=0))
        rest = torch.func.jacfwd(lambda b: hand(flat, b[None]).vertices[0])(betas)
        for treatment in TREATMENTS:
            info = informed(result, person, name, assets, treatment, turns, guessed)
            shared, own = info.draws(draws, generator)
            off = torch.einsum("fju,dfu->dfj", turns[0], own[..., POSE])
            off = off + torch.einsum("fjb,db->dfj", turns[1], shared[:, BETAS])
            off = off.unflatten(-1, (21, 3)) + own[..., None, PLACE]
            zero = torch.einsum("vxb,db->dvx", rest, shared[:, BETAS]).norm(dim=-1).mean()
            found[treatment].append([1000 * float(off.norm(dim=-1).mean()), 1000 * float(zero)])
    return {treatment: np.mean(errors, axis=0).round(2).tolist() for treatment, errors in found.items()}


def stated(measure: Measure, treatment: str, draws: int = 200) -> float:
    """mm, zero-pose error that the identities' own covariances say to expect."""
    generator, found = np.random.default_rng(0), []
    for identity in measure.identities[treatment]:
        drawn = generator.multivariate_normal(identity.betas, identity.covariance, draws)
        found.append(float((measure.rest(drawn) - measure.rest(identity.betas[None])).norm(dim=-1).mean()))
    return 1000 * float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description="How near to the truth simulated estimators' hands can come.")
    parser.add_argument("--estimators", nargs="+", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--people", type=int, default=22)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--seed", type=int, nargs="+", default=[31001], help="of the people; default: choices' own")
    parser.add_argument("--no_oracle", action="store_true", help="of the product alone, which is several times faster")
    args = parser.parse_args()
    assets = load_hand_assets()
    for name in args.estimators:
        shares: dict[tuple[str, str], list[list[float]]] = {}
        for seed in args.seed:
            result = estimate(assets, name, args.people, args.frames, seed)
            measure, generator = Measure(assets), np.random.default_rng(seed)
            for person in simulated_people(name, result):
                measure.person(person, name in WITH_POSE, generator)
            product = {row["treatment"]: row for row in measure.rows(name)}
            none = {treatment: [float("nan")] * 2 for treatment in TREATMENTS}
            knows = none if args.no_oracle else oracle(assets, name, result)
            bases = {
                "camera_space": product["released"]["camera_space_mm"],
                "zero_pose": product["mean_shape"]["zero_pose_mm"],
            }
            print(
                f"{name:10s} seed {seed}: released camera {bases['camera_space']:.1f} mm, "
                f"mean_shape zero pose {bases['zero_pose']:.2f} mm",
                flush=True,
            )
            for treatment in TREATMENTS:
                row, line = product[treatment], f"{name:10s} {treatment:10s}"
                for (metric, base), best in zip(bases.items(), knows[treatment], strict=True):
                    ours = row[f"{metric}_mm"]
                    share = [100 * (ours / base - 1), 100 * (best / base - 1)]
                    shares.setdefault((treatment, metric), []).append(share)
                    line += f"  {metric} {ours:5.2f} ({share[0]:+.0f}%)"
                    line += "" if args.no_oracle else f" oracle {best:5.2f} ({share[1]:+.0f}%)"
                if treatment in measure.identities:
                    line += f" stated {stated(measure, treatment):4.2f}, {row['length_in_95']:.2f} in 95%"
                print(f"{line} mm", flush=True)
        for (treatment, metric), each in shares.items() if len(args.seed) > 1 else ():
            mean, std = np.mean(each, axis=0), np.std(each, axis=0, ddof=1)
            off = student.ppf(0.975, len(each) - 1) * std / len(each) ** 0.5
            said = [f"{m:+.1f}% [{m - o:+.1f}, {m + o:+.1f}]" for m, o in zip(mean, off, strict=True)]
            line = f"{name:10s} {treatment:10s} {metric}, {len(each)} seeds: {said[0]}"
            print(line if args.no_oracle else f"{line}, oracle {said[1]}", flush=True)


if __name__ == "__main__":
    main()
