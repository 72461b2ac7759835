"""Camera-space registration with and without silhouettes, on networks' predictions.

``python benchmarks/studies/registration.py --data_root DIR --predictions FILE --keypoints FILE`` registers each
predicted mesh, and for comparison the true one, with the predicted 2D keypoints; silhouettes are the data set's masks
(hands that objects hide in part). Prints the mean distance of the wrist from the truth in mm. ``--json``:
one object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from datasets import open_labels  # noqa: E402
from src.personalization.pairing import annotations_of, pair_keypoints, rows_of  # noqa: E402
from src.personalization.registration.register import HIDDEN, register_mesh  # noqa: E402
from src.personalization.solver.status import count_status  # noqa: E402
from template import HandModel, load_hand_assets  # noqa: E402
from utils.artifacts import Predictions, load_predictions  # noqa: E402

#: Value of the hand in DexYCB's segmentation.
HAND = 255


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Error of the camera-space position with and without silhouettes.")
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--predictions", required=True, help="npz of mano_baseline(_conf)")
    parser.add_argument("--keypoints", help="npz of pose_2d, same images")
    parser.add_argument("--cache")
    parser.add_argument("--hidden", type=float, nargs="+", default=[HIDDEN], help="to compare")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--mano_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def hand_masks(dataset: Any, predictions: Predictions) -> torch.Tensor:
    """(N,H,W) bool, mirrored where the hand was a left one."""
    masks = []
    for row, is_left in zip(rows_of(dataset, predictions), predictions.is_left, strict=True):
        image = Path(dataset.image_path(int(row)))
        with np.load(image.with_name(image.name.replace("color_", "labels_")).with_suffix(".npz")) as labels:
            mask = labels["seg"] == HAND
        masks.append(mask[:, ::-1] if is_left else mask)
    return torch.as_tensor(np.stack(masks))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each mesh, with and without silhouettes."""
    assets = load_hand_assets(args.mano_dir, side="right")
    hand = HandModel(assets)
    predictions = load_predictions(args.predictions)
    predictions.check_hand(assets)
    predictions = pair_keypoints(predictions, load_predictions(args.keypoints) if args.keypoints else None)
    dataset = open_labels("dex_ycb", args.data_root, predictions.split, mano_dir=args.mano_dir, cache=args.cache)
    truth = annotations_of(dataset, predictions)
    predictions = predictions.select(truth["valid"])
    truth = {name: value[truth["valid"]] for name, value in truth.items()}
    masks = hand_masks(dataset, predictions)
    wrist = torch.as_tensor(truth["joints"][:, 0])
    K, keypoints = torch.as_tensor(predictions.K), torch.as_tensor(predictions.keypoints_2d)
    trust = None if predictions.keypoint_confidence is None else torch.as_tensor(predictions.keypoint_confidence)
    rows = []
    for name, source in (("true", truth), ("predicted", vars(predictions))):
        mesh = hand(torch.as_tensor(source["pose"]), torch.as_tensor(source["betas"]))
        relative = (mesh.vertices - mesh.joints[:, :1], mesh.joints - mesh.joints[:, :1])
        for hidden in (None, *args.hidden):
            silhouettes = {} if hidden is None else {"mask": masks, "hidden": hidden}
            started = time.perf_counter()
            result = register_mesh(*relative, K, keypoints, trust, **silhouettes)
            seconds = time.perf_counter() - started
            error = 1000 * (result.transl - wrist)
            rows.append(
                {
                    "mesh": name,
                    "silhouette": hidden is not None,
                    "hidden": hidden,
                    "mean_mm": float(error.norm(dim=1).mean()),
                    "median_mm": float(error.norm(dim=1).median()),
                    "depth_bias_mm": float(error[:, 2].mean()),
                    "images": len(error),
                    "seconds": seconds,
                    "status": count_status(result.status),
                }
            )
    return rows


def main() -> None:
    args = get_args_parser().parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = measure(args)
    if args.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        what = f"keypoints + silhouette, hidden {row['hidden']:g}" if row["silhouette"] else "keypoints"
        print(
            f"{row['mesh']:<10}{what:<36}mean {row['mean_mm']:6.2f}  median {row['median_mm']:6.2f}  "
            f"depth bias {row['depth_bias_mm']:6.2f} mm  {row['images']} images in {row['seconds']:.1f} s  "
            f"{row['status']}"
        )


if __name__ == "__main__":
    main()
