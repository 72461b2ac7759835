"""From 21 points in space to a hand: ours beside smplfitter (torch, numba) and eden-mpi-ik, on the same hand.

``python benchmarks/joints_to_hand.py --json`` prints ``rows`` of noise_mm, hands, missing, threads, solver, joints_mm,
vertices_mm, betas, hands_per_second. Peers that are not installed are left out (requirements-peers.txt).

Unseen hands in any orientation, betas unit normal, poses of the hand's own pose statistics; Gaussian noise of that
standard deviation on every coordinate. Ours learns the noise from the points; ``ours closed form`` is its start alone,
``ours one step`` a single step of the solver after it. smplfitter gets the 16 joints and the
five tips as vertices, and at each noise the best of its documented regularisers and of 1 or 4 iterations, chosen on
other hands. eden-mpi-ik knows no place, no missing points, no pose blend and one hand at a time: it gets the points
about the wrist, all 45 pose components, and its speed is of a few hands. Errors are of the mesh posed by our layer with
what each found; those of eden-mpi-ik with the wrist laid on the true one.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import pickle
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import roma  # noqa: E402
import torch  # noqa: E402

from benchmarks.machine import CLOCKS, describe_machine  # noqa: E402
from benchmarks.scenes.simulation import simulate  # noqa: E402
from src.personalization.fitting.from_joints import LM, STD, JointFitOptions, fit_joints  # noqa: E402
from template import HandAssets, HandModel, load_hand_assets  # noqa: E402
from utils.joints import MANO_PARENTS, STANDARD_TO_MANO, tip_vertices  # noqa: E402

#: What smplfitter's documentation calls good choices, and iterations.
REGULARISERS, ITERATIONS = (0.0, 0.1, 1.0, 10.0), (1, 4)
#: Hands that eden-mpi-ik is run on.
FEW = 4

Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # pose (N,16,3,3), betas (N,10), transl (N,3) m


@dataclass
class Case:
    """Hands to be found: points (N,21,3) m, standard order, confidence (N,21), and the truth."""

    points: torch.Tensor
    confidence: torch.Tensor
    truth: Found

    def first(self, count: int) -> Case:
        """Some of them."""
        return Case(self.points[:count], self.confidence[:count], tuple(v[:count] for v in self.truth))  # type: ignore


def make_case(assets: HandAssets, hands: int, noise_mm: float, missing: int, seed: int) -> Case:
    """Simulated hands with that noise, ``missing`` points of each unseen."""
    world = simulate(assets, hands, 1, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(hands, 21, 3, generator=generator, dtype=torch.float64)
    order = torch.rand(hands, 21, generator=generator).argsort(dim=1)
    truth = (world.pose[:, 0], world.betas, world.transl[:, 0])
    return Case(world.joints[:, 0] + noise_mm / 1000 * noise, (order >= missing).double(), truth)


def ours(assets: HandAssets, steps: int = 20) -> Callable[[Case], Found]:
    """`fit_joints`, the noise not told."""

    def run(case: Case) -> Found:
        std = STD if steps == 0 else None  # the start alone needs none
        options = JointFitOptions(std=std, lm=replace(LM, max_steps=steps))
        found = fit_joints(assets, case.points, case.confidence, options=options)
        return found.pose, found.betas, found.transl

    return run


def smplfitter(assets: HandAssets, backend: str, regulariser: float, iterations: int) -> Callable[[Case], Found]:
    """smplfitter on 16 joints and five vertices."""
    module = importlib.import_module(f"smplfitter.{backend}")
    tips = list(tip_vertices("manopth"))
    kintree = np.array([[2**32 - 1, *MANO_PARENTS[1:]], range(16)], dtype=np.int64)
    content = {
        name: getattr(assets, name) for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    }
    content |= {"f": assets.faces, "kintree_table": kintree}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MANO_RIGHT.pkl").write_bytes(pickle.dumps(content))
        regressor = assets.J_regressor[:, tips]
        model = module.BodyModel("mano", model_root=folder, vertex_subset=tips, faces=np.zeros((0, 3), np.int64),
                                 joint_regressor_post_lbs=regressor)  # fmt: skip
    fitter = module.BodyFitter(model)
    convert: Any = (lambda v: v.float()) if backend == "pt" else (lambda v: v.float().numpy())
    order = list(STANDARD_TO_MANO)

    def run(case: Case) -> Found:
        points, trust = convert(case.points[:, order]), convert(case.confidence[:, order])
        with torch.no_grad():
            found = fitter.fit(points[:, 16:], points[:, :16], trust[:, 16:], trust[:, :16], num_iter=iterations,
                               beta_regularizer=regulariser,
                               requested_keys=["pose_rotvecs", "shape_betas", "trans"])  # fmt: skip
        pose, betas, transl = (
            torch.as_tensor(np.asarray(found[key]), dtype=torch.float64)
            for key in ("pose_rotvecs", "shape_betas", "trans")
        )
        return roma.rotvec_to_rotmat(pose.view(-1, 16, 3)), betas, transl

    return run


def eden(assets: HandAssets) -> Callable[[Case], Found]:
    """eden-mpi-ik, one hand after the other."""
    from mpi_ik import KinematicModel, KinematicPCAWrapper, MANOArmature, Solver

    class Armature(MANOArmature):
        keypoints_ext = [tip_vertices("manopth")[finger] for finger in (1, 2, 4, 3, 0)]

    content = {
        "pose_pca_basis": assets.hands_components, "pose_pca_mean": assets.hands_mean,
        "J_regressor": assets.J_regressor, "skinning_weights": assets.weights, "mesh_pose_basis": assets.posedirs,
        "mesh_shape_basis": assets.shapedirs, "mesh_template": assets.v_template, "faces": assets.faces,
        "parents": [None, *MANO_PARENTS[1:]],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mano.pkl").write_bytes(pickle.dumps(content))
        model = KinematicModel(Path(folder, "mano.pkl"), Armature, scale=1000)
    wrapper, solver = KinematicPCAWrapper(model, n_pose=45), Solver()
    order = [*STANDARD_TO_MANO[:16], *(STANDARD_TO_MANO[tip] for tip in (17, 18, 20, 19, 16))]
    wrist = assets.J_regressor[0] @ assets.v_template

    def run(case: Case) -> Found:
        poses, shapes = [], []
        for points in case.points[:, order].numpy():
            _, components, root = wrapper.decode(solver.solve(wrapper, 1000 * (points - points[0] + wrist)))
            shapes.append(model.shape.copy())
            poses.append(np.concatenate([root, components @ assets.hands_components + assets.hands_mean]))
        pose = roma.rotvec_to_rotmat(torch.as_tensor(np.array(poses)).view(-1, 16, 3))
        betas = torch.as_tensor(np.array(shapes))
        rest = torch.as_tensor(np.einsum("v,vcs,ns->nc", assets.J_regressor[0], assets.shapedirs, betas) + wrist)
        return pose, betas, case.points[:, 0] - rest

    return run


def errors(hand: HandModel, found: Found, truth: Found, centred: bool = False) -> dict[str, float]:
    """Mean errors: joints and vertices in mm, betas."""
    one, other = hand(*found), hand(*truth)
    shift = (one.joints[:, :1] - other.joints[:, :1]) if centred else 0.0
    return {
        "joints_mm": 1000 * float((one.joints - shift - other.joints).norm(dim=-1).mean()),
        "vertices_mm": 1000 * float((one.vertices - shift - other.vertices).norm(dim=-1).mean()),
        "betas": float((found[1] - truth[1]).abs().mean()),
    }


def solvers(assets: HandAssets, noise_mm: float, missing: int, hand: HandModel) -> dict[str, Callable[[Case], Found]]:
    """Every solver there is, as it is best used at this noise."""
    found = {"ours": ours(assets), "ours one step": ours(assets, 1), "ours closed form": ours(assets, 0)}
    other = make_case(assets, 128, noise_mm, missing, seed=900)
    for backend, package in (("pt", "torch"), ("nb", "numba")):
        if not (importlib.util.find_spec("smplfitter") and importlib.util.find_spec(package)):
            continue
        choices = {c: smplfitter(assets, backend, *c) for c in itertools.product(REGULARISERS, ITERATIONS)}
        scores = {c: errors(hand, run(other), other.truth)["vertices_mm"] for c, run in choices.items()}
        best = min(scores, key=lambda choice: scores[choice])
        found[f"smplfitter {package}"] = choices[best]
    if importlib.util.find_spec("mpi_ik") and not missing:
        found["eden-mpi-ik"] = eden(assets)
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    assets = load_hand_assets(args.mano_dir)
    hand, rows = HandModel(assets, dtype=torch.float64), []
    clock = CLOCKS[args.clock]
    for noise, missing in [*((noise, 0) for noise in args.noise), *((5.0, count) for count in args.missing)]:
        for (name, run), hands, threads in itertools.product(
            solvers(assets, noise, missing, hand).items(), args.hands, args.threads
        ):
            torch.set_num_threads(threads)
            case = make_case(assets, hands, noise, missing, seed=17)
            case = case.first(FEW) if name == "eden-mpi-ik" else case
            slow, seconds = name == "eden-mpi-ik", []
            if not slow:
                run(case)  # first use of kernels and compilers
            for _ in range(1 if slow else args.repeats):
                started = clock()
                found = run(case)
                seconds.append(clock() - started)
            score = case
            if hands == 1 and name != "eden-mpi-ik":  # the error of one hand says nothing
                score = make_case(assets, 256, noise, missing, seed=17)
                parts = [run(Case(score.points[i : i + 1], score.confidence[i : i + 1], case.truth)) for i in range(64)]
                found, score = tuple(torch.cat(values) for values in zip(*parts, strict=True)), score.first(64)
            rows.append({
                "noise_mm": noise, "hands": hands, "missing": missing, "threads": threads, "solver": name,
                **errors(hand, found, score.truth, centred=name == "eden-mpi-ik"),
                "hands_per_second": len(case.points) / statistics.median(seconds),
            })  # fmt: skip
    return {"machine": describe_machine(), "clock": args.clock, "hand": assets.name, "rows": rows}


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="21 joints to a hand: accuracy and speed beside peers.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 2.0, 5.0, 10.0], help="mm a coordinate")
    parser.add_argument("--hands", type=int, nargs="+", default=[1, 1024])
    parser.add_argument("--missing", type=int, nargs="*", default=[4], help="points unseen in each hand, at 5 mm")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: on a machine that is not idle")
    parser.add_argument("--mano_dir")
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(result["machine"])
    line = "{noise_mm:4.1f} mm {hands:5d} hands {missing:2d} missing {threads} threads  {solver:17s} "
    line += "joints {joints_mm:6.2f} vertices {vertices_mm:6.2f} mm betas {betas:5.2f} {hands_per_second:9.1f}/s"
    print(*(line.format(**row) for row in result["rows"]), sep="\n")


if __name__ == "__main__":
    main()
