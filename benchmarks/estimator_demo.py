"""The two ends of scripts/demo_estimators.sh: simulated results of unseen people, and what personalising did to them.

``write`` leaves for each person ``results/`` (HaMeR's own format), ``pictures/``, ``ruler_mm.txt`` (the hand measured
to 3 mm) and ``truth.npz``. ``compare`` prints and writes table.txt, table.json and picture.png: the hands of a person
from above, as released and personalised, both with the true ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.estimators import placed  # noqa: E402
from benchmarks.scenes.estimator_simulation import SIZE, estimate, write_results  # noqa: E402
from src.estimators import read_estimates  # noqa: E402
from src.personalization.terms.hand_size import length_gradient  # noqa: E402
from template import HandModel, load_hand_assets  # noqa: E402
from template.kinematics import JointsModel  # noqa: E402
from utils.artifacts import load_identity, load_predictions  # noqa: E402
from utils.drawing.overlay import overlay_mesh  # noqa: E402
from utils.files import atomic_path, write_text  # noqa: E402
from utils.joints import BONES  # noqa: E402

#: Whose hand the simulation seeds; unlike `benchmarks.estimators`' and those that trust was measured on.
SEED, PEOPLE, FRAMES = 31, 2, 14
_SKIN, _WALL = (224, 172, 140), (205, 208, 212)
#: Frames drawn, and colours of the true, released and personalised hand.
_DRAWN, _TRUE, _RELEASED, _OURS = 6, "#999999", "#c0392b", "#1f77b4"


def write(output: Path) -> None:
    assets = load_hand_assets()
    hand, model = HandModel(assets, dtype=torch.float64), JointsModel(assets)
    result = estimate(assets, "hamer", PEOPLE, FRAMES, SEED)
    world, generator = result.world, np.random.default_rng(SEED)
    for person in range(PEOPLE):
        folder = output / f"person-{person}"
        write_results(folder / "results", "hamer", result, person)
        true = 1000 * float(length_gradient(model, world.betas[person], "hand")[0])
        write_text(folder / "ruler_mm.txt", f"{true + 3 * generator.normal():.1f}\n")
        np.savez(folder / "truth.npz", joints=world.joints[person], betas=world.betas[person], hand_length_mm=true)
        betas = world.betas[person].expand(FRAMES, 10)
        meshes = hand(world.pose[person], betas, world.transl[person]).vertices.numpy()
        (folder / "pictures").mkdir(exist_ok=True)
        for frame in range(FRAMES):
            wall = np.full((SIZE[1], SIZE[0], 3), _WALL, np.uint8)
            picture = overlay_mesh(wall, meshes[frame], assets.faces, world.K[person, frame].numpy(), _SKIN)
            cv2.imwrite(str(folder / "pictures" / f"frame-{frame:03d}.jpg"), picture[..., ::-1])


def compare(output: Path) -> None:
    """Errors of both, and the picture."""
    rows, drawn = [], None
    for person in range(PEOPLE):
        folder = output / f"person-{person}"
        found = load_predictions(folder / "personalised" / "rows.npz")
        released = read_estimates(folder / "results", "hamer", K=found.K[0], image_size=SIZE)
        with np.load(folder / "truth.npz") as archive:
            truth, length = archive["joints"], float(archive["hand_length_mm"])
        hand = HandModel(load_hand_assets(), dtype=torch.float64)
        given = (torch.as_tensor(value).double() for value in (found.pose, found.betas, found.transl))
        ours, theirs = hand(*given).joints.numpy(), placed(released, released.joints_3d)
        identity = load_identity(folder / "identity.json")
        low, high = identity.interval_mm or (np.nan, np.nan)
        for name, joints in (("released", theirs), ("personalised", ours)):
            off = joints - truth
            relative = 1000 * float(np.linalg.norm(off - off[:, :1], axis=-1).mean())
            rows.append({"person": person, "hand": name, "wrist_relative_mm": round(relative, 2),
                         "camera_space_mm": round(1000 * float(np.linalg.norm(off, axis=-1).mean()), 2)})  # fmt: skip
        rows[-1] |= {"length_mm": round(identity.length_mm, 1), "interval_mm": [round(low, 1), round(high, 1)],
                     "true_length_mm": round(length, 1)}  # fmt: skip
        drawn = drawn or (theirs, ours, truth)
    line = "person {person}  {hand:12s}  wrist-relative {wrist_relative_mm:6.2f} mm  "
    line += "camera space {camera_space_mm:6.2f} mm"
    lines = [line.format(**row) for row in rows]
    write_text(output / "table.txt", "\n".join(lines) + "\n")
    write_text(output / "table.json", json.dumps({"simulated": True, "rows": rows}, indent=1) + "\n")
    print(*lines, sep="\n")
    assert drawn is not None
    draw(output / "picture.png", *drawn)


def draw(path: Path, released: np.ndarray, ours: np.ndarray, truth: np.ndarray) -> None:
    """Hands (N,21,3) m from above, released and personalised, each with the true ones."""
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    chosen = spread(truth, _DRAWN)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, joints, colour, title in (
        (axes[0], released, _RELEASED, "as released"),
        (axes[1], ours, _OURS, "one hand and a ruler"),
    ):
        for frame in chosen:
            skeleton(axis, truth[frame], _TRUE, 3.0)
            skeleton(axis, joints[frame], colour, 1.4)
        error = 1000 * np.linalg.norm(joints - truth, axis=-1).mean()
        axis.set_title(f"{title}: {error:.0f} mm off", loc="left", fontsize=10)
        axis.set_aspect("equal")
        axis.set_xlabel("to the right [m]")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("from the camera [m]")
    handles = [axes[0].plot([], [], color=c, lw=w, label=n)[0] for c, w, n in
               ((_TRUE, 3, "true"), (_RELEASED, 1.4, "simulated estimator"), (_OURS, 1.4, "ours"))]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def spread(truth: np.ndarray, count: int) -> list[int]:
    """Frames whose wrists lie far apart from above, greedily."""
    wrists = truth[:, 0][:, [0, 2]]
    chosen = [int(wrists[:, 1].argmin())]
    while len(chosen) < count:
        chosen.append(int(np.linalg.norm(wrists[:, None] - wrists[chosen], axis=2).min(axis=1).argmax()))
    return chosen


def skeleton(axis: Axes, joints: np.ndarray, colour: str, width: float) -> None:
    """Bones of a hand (21,3) m, x to the right, z up."""
    for parent, child in BONES:
        pair = joints[[parent, child]]
        axis.plot(pair[:, 0], pair[:, 2], color=colour, lw=width, solid_capstyle="round")


def main() -> None:
    parser = argparse.ArgumentParser(description="The ends of scripts/demo_estimators.sh.")
    parser.add_argument("step", choices=("write", "compare"))
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    {"write": write, "compare": compare}[args.step](args.output)


if __name__ == "__main__":
    main()
