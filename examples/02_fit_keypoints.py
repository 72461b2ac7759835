"""Somebody's 2D keypoints to a posed hand in metres, without and with the person's identity.

The keypoints are made here, of a known hand with 1 px of noise, so that the errors can be printed.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for a clone that is not installed
import handid

folder = Path("out/examples")

# A large hand, half a metre away, bent in 20 ways; seen by a camera of 600 px focal length.
assets = handid.load_hand_assets()
generator = torch.Generator().manual_seed(0)
betas = torch.tensor([1.5, -0.5, 0.8, 0, 0, 0, 0, 0, 0, 0])
coefficients = 0.7 * torch.randn(20, 45, generator=generator)
coefficients[:, 10:] = 0
orientation = torch.tensor([0.0, 1.4, -1.4]) + 0.3 * torch.randn(20, 3, generator=generator)
pose = handid.pca_to_pose(assets, orientation, coefficients)  # (20,3), (20,45) -> (20,16,3,3)
truth = handid.HandModel(assets)(pose, betas.expand(20, 10), torch.tensor([0.0, 0.0, 0.5]).expand(20, 3)).joints
K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
keypoints = (truth @ torch.tensor(K, dtype=torch.float32).T).numpy()  # (20,21,3)
keypoints = keypoints[..., :2] / keypoints[..., 2:]  # px, standard order: wrist, thumb to little finger
keypoints += np.random.default_rng(0).normal(0.0, 1.0, keypoints.shape)

for name, known in (("shape unknown", None), ("shape known", betas.numpy())):
    fitted = handid.fit(keypoints, K, betas=known)  # FittedHands: joints (20,21,3) m, vertices, pose, status, ...
    error = np.linalg.norm(np.asarray(fitted.joints) - truth.numpy(), axis=-1)
    root = np.linalg.norm(np.asarray(fitted.joints)[:, 0] - truth[:, 0].numpy(), axis=-1)
    print(f"{name}: camera space {1000 * error.mean():.0f} mm, wrist {1000 * root.mean():.0f} mm")
    handid.write_mesh(folder / f"{name.replace(' ', '_')}.glb", fitted.vertices[0], fitted.faces)
