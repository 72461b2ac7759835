"""One reconstructed hand: what the page, predictions.json, a video's frames, mesh files and Python callers get to know.

`Result` documents every value once; `Result.record` is the same as plain JSON. Everything is in the picture's own
frame, left hands left.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.personalization.terms.hand_size import Length
from src.photos.camera import GUESSED
from template import HandAssets, mirror_assets, mirror_pose
from utils.camera import mirror_intrinsics, mirror_points
from utils.cameras.lens import CameraModel
from utils.cameras.poses import AXES, CameraPose
from utils.cameras.views import View
from utils.files import write_json
from utils.identity import HALF_95
from utils.mesh_io import FORMATS, write_mesh
from utils.short_repr import ShortRepr

SCHEMA = 1
CONVENTIONS = {
    "frame": "OpenCV camera: x right, y down, z forward; left hands are left. Below world: the world's own axes",
    "units": "metres, pixels (centres at integers), millimetres where a name ends in _mm",
    "joint_order": "wrist, then thumb, index, middle, ring, little, each from palm to tip",
    "parameters": "pose (rotations relative to the parent, MANO's joint order), betas and transl, posed by the "
    "hand_model of that hand, give its vertices; the left hand_model is the mirror image of the right one "
    "(template.mirror_assets), not the file MANO_LEFT, whose betas mean something else",
}
_FLIP = np.array([-1, 1, 1], dtype=np.int8)  # which leaves a point's own precision


@dataclass(frozen=True)
class HandLength(Length):
    """Wrist to middle fingertip of the stretched hand.

    source: who says so. people: where nothing measured tells the size, which one camera cannot see, what people's hands
    are like, or None: it is known.
    """

    source: str = ""
    people: Length | None = None

    @property
    def is_known(self) -> bool:
        """Something measured tells the size, not only what people are like."""
        return self.people is None

    def __str__(self) -> str:
        if self.people is None:
            interval = self.interval_95
            words = "interval not known" if interval is None else f"95%: {interval[0]:.0f} to {interval[1]:.0f}"
            return f"hand length {self.mm:.0f} mm ({words})"
        half = "" if self.people.std_mm is None else f" ± {HALF_95 * self.people.std_mm:.0f}"
        return f"size unknown; as large as people's are: {self.people.mm:.0f}{half} mm"


@dataclass(frozen=True)
class Sources:
    """Who said what: of the camera, of the box, which hand it is, and where its keypoints are."""

    camera: str = ""
    box: str = ""
    side: str = ""
    keypoints: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Result(ShortRepr):
    """A hand in a picture of ``width`` pixels, or in its mirror image while it is worked on (see `mirrored`).

    Attributes:
        K: (3,3) px; box: (3,) tight square, centre x, centre y, side, px.
        keypoints: (21,2) px, standard order, and confidence: (21,) in [0,1]: what was observed.
        vertices: (778,3) and joints: (21,3), metres, OpenCV camera frame.
        assets: the hand model of that side; a left one is the right one's mirror image.
        reprojection_px: root mean square distance, weighted by confidence, of the keypoints to the points of the hand
            that their source calls so: the joints, or mediapipe's, which lie elsewhere.
        pose: (16,3,3) and transl: (3,) m of ``assets``; None from networks that give only a mesh.
        betas: (10,) or None.
        length: of the stretched hand, or None.
        mask: (h,w) in 0..1, the silhouette that the network saw, and mask_to_image: (2,3) from its px; or None.
        certainty: how sure this hand is: "side" (probability), "score" (of the search), "misfit" (distance of fit and
            keypoints over the most allowed), "distance_std_m" (if the lens is as said or guessed); what is known.
        attention: (21,778), how much joints of a METRO network looked at vertices (`Metro.attention`), or None.
        sources: who said what. notes: further facts for whoever reads the result.
        lens: with distortion, whose K it is; None: a pinhole camera. Keypoints and box are px of its picture.
        view: the perspective crop (`src.photos.perspective`) that the hand was looked at through, whose px those of the
            mask are; None: the picture itself.
        camera_pose: where the camera is, or None: nobody said. All else is in the camera's frame all the same.
        predicted_pose: (16,3,3) and predicted_betas: (10,) that a network said of this picture alone, and world: (21,3)
            m, the detector's own guess (`Detection.world`): what a fit over time takes up; or None.
    """

    width: int
    K: np.ndarray
    box: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    assets: HandAssets
    reprojection_px: float
    pose: np.ndarray | None = None
    transl: np.ndarray | None = None
    betas: np.ndarray | None = None
    length: HandLength | None = None
    mask: np.ndarray | None = None
    mask_to_image: np.ndarray | None = None
    attention: np.ndarray | None = None
    certainty: dict[str, float] = field(default_factory=dict)
    sources: Sources = Sources()
    notes: dict[str, Any] = field(default_factory=dict)
    lens: CameraModel | None = None
    view: View | None = None
    camera_pose: CameraPose | None = None
    predicted_pose: np.ndarray | None = None
    world: np.ndarray | None = None
    predicted_betas: np.ndarray | None = None

    @property
    def faces(self) -> np.ndarray:
        """(1538,3) vertex numbers of the triangles, counter-clockwise seen from outside."""
        return self.assets.faces.copy()  # the caller may change them

    @property
    def side(self) -> str:
        """ "left" or "right"."""
        return self.assets.side

    @property
    def distance_m(self) -> float:
        """From the camera to the wrist."""
        return float(np.linalg.norm(self.joints[0]))

    def mirrored(self) -> Result:
        """The same hand in the mirror image of the picture: the other side's."""
        pose, predicted = (
            None if one is None else mirror_pose(torch.as_tensor(one)).numpy()
            for one in (self.pose, self.predicted_pose)
        )
        affine = self.mask_to_image
        if affine is not None:
            affine = np.stack([-affine[0] + [0, 0, self.width - 1], affine[1]])
        return replace(
            self,
            K=mirror_intrinsics(self.K, self.width),
            box=mirror_points(self.box, self.width),
            keypoints=mirror_points(self.keypoints, self.width),
            vertices=self.vertices * _FLIP,
            joints=self.joints * _FLIP,
            assets=_mirrored_assets(self.assets),
            pose=pose,
            transl=None if self.transl is None else self.transl * _FLIP,
            mask_to_image=affine,
            predicted_pose=predicted,
            world=None if self.world is None else self.world * _FLIP,
        )

    def moved(self, rotation: np.ndarray, shift: np.ndarray | None = None) -> Result:
        """The same hand in another frame: its points p (m) become ``rotation`` (3,3) p + ``shift`` (3,) m."""
        shift = np.zeros(3) if shift is None else shift
        vertices, joints = (points @ rotation.T + shift for points in (self.vertices, self.joints))
        pose, predicted = (
            None if one is None else np.concatenate([(rotation @ one[0])[None], one[1:]]).astype(one.dtype)
            for one in (self.pose, self.predicted_pose)
        )
        transl = self.transl
        if transl is not None:  # the pose turns about the wrist, which is at J0(betas) + transl
            transl = (joints[0] - (self.joints[0] - transl)).astype(transl.dtype)
        moved = {"vertices": vertices, "joints": joints, "pose": pose, "transl": transl, "predicted_pose": predicted}
        return replace(self, **moved)

    def in_world(self, y_down: bool = False) -> Result:
        """The hand in the world's frame, or, without one, in the camera's; ``y_down``: with the camera's axes there."""
        pose = self.camera_pose
        if pose is None:
            return self
        turn = AXES[pose.axes] if y_down else np.eye(3)
        there = CameraPose(np.eye(3), np.zeros(3), "y_down" if y_down else pose.axes)  # moved again it stays
        return replace(self.moved(turn @ pose.rotation, turn @ pose.place), camera_pose=there)

    def record(self, with_vertices: bool = True) -> dict[str, Any]:
        """The hand as plain JSON, in the units and axes of `CONVENTIONS`.

        Returns:
            ``hand`` {side, source}; ``hand_model`` {name, side, hash} that the parameters belong to; ``camera``
            {K 3x3 px, source, and of a lens with distortion its ``lens`` and OpenCV's ``distortion``}; ``box``
            {left_top_right_bottom px, source}; ``hand_length`` {mm, std_mm, interval_95_mm, source, known (else
            ``people`` says what people's are)}; ``certainty`` (see above);
            ``reprojection_px``; the notes; ``keypoints_from``, ``keypoints_2d`` 21x2 px and
            ``keypoint_confidence`` 21, what was observed; ``joints`` 21x3 m; ``pose`` 16x3x3, ``betas`` 10 and
            ``transl`` 3 m (null from networks that give a mesh only); ``vertices`` 778x3 m; where the camera's place
            is known ``world`` {``world_from_camera`` 4x4, and ``pose``, ``transl``, ``joints``, ``vertices`` there}.
        """
        length, interval = self.length, None if self.length is None else self.length.interval_95
        names = ("pose", "transl", "joints", "vertices")[: 4 if with_vertices else 3]
        arrays = {"betas": self.betas, **{name: getattr(self, name) for name in names}}
        lens = {} if self.lens is None else self.lens.as_json()
        world: dict[str, Any] = {}
        if self.camera_pose is not None:
            world = {"world_from_camera": self.camera_pose.matrix.tolist()}
            moved = {name: getattr(self.in_world(), name) for name in names}
            world = {"world": world | {name: _listed(array) for name, array in moved.items()}}
        return {
            "hand": {"side": self.side, "source": self.sources.side},
            "hand_model": {"name": self.assets.name, "side": self.side, "hash": self.assets.hash},
            "camera": {"K": self.K.tolist(), "source": self.sources.camera, **lens},
            "box": {"left_top_right_bottom": corners(self.box), "source": self.sources.box},
            "hand_length": None
            if length is None
            else {
                "mm": round(length.mm, 2),
                "std_mm": None if length.std_mm is None else round(length.std_mm, 2),
                "interval_95_mm": None if interval is None else [round(value, 2) for value in interval],
                "source": length.source,
                "known": length.is_known,
                **({} if length.people is None else {"people": length.people.as_json()}),
            },
            "certainty": {key: round(float(value), 4) for key, value in self.certainty.items()},
            "reprojection_px": round(self.reprojection_px, 3),
            **self.notes,
            "keypoints_from": self.sources.keypoints,
            "keypoints_2d": _plain(self.keypoints, 3),
            "keypoint_confidence": _plain(self.confidence, 4),
            **{name: _listed(array) for name, array in arrays.items()},
            **world,
        }

    def save(self, path: str | os.PathLike, color: tuple[int, int, int] | None = None) -> None:
        """Write a mesh (.glb in glTF's axes, .ply in the camera's) or everything (.json), atomically.

        Where the camera's place is known, meshes are in the world.

        Raises:
            ValueError: another suffix.
        """
        path = Path(path)
        if path.suffix == ".json":
            write_json(path, {"schema": SCHEMA, **CONVENTIONS, **self.record()})
        elif path.suffix in FORMATS:
            vertices = self.in_world(y_down=path.suffix == ".glb").vertices
            write_mesh(path, vertices, self.faces, None if color is None else np.array(color))
        else:
            raise ValueError(f"{path}: suffix {path.suffix!r} is unknown; use one of {(*FORMATS, '.json')}")

    def describe_length(self) -> str:
        """Hand length with its interval, in words."""
        return "hand length unknown" if self.length is None else str(self.length)

    def describe_certainty(self) -> str:
        """What is known of how sure this hand is, in words."""
        known, words = self.certainty, []
        if "side" in known:
            words.append(f"{100 * known['side']:.0f}% sure of the side")
        if "score" in known:
            words.append(f"search score {known['score']:.2f}")
        if "misfit" in known:
            words.append(f"keypoints {100 * known['misfit']:.0f}% as far off as the most that is allowed")
        if "distance_std_m" in known:
            guessed = " if the lens is as guessed" if self.sources.camera.startswith(GUESSED) else ""
            share = HALF_95 * known["distance_std_m"] / max(self.distance_m, 1e-9)
            words.append(f"distance ± {100 * share:.0f}%{guessed}")
        return ", ".join(words) or "not known"


@functools.lru_cache(maxsize=4)
def _mirrored_assets(assets: HandAssets) -> HandAssets:
    return mirror_assets(assets)


def corners(box: np.ndarray) -> list[float]:
    """Left, top, right, bottom of a square box (3,), px."""
    x, y, side = box
    return [round(float(value), 2) for value in (x - side / 2, y - side / 2, x + side / 2, y + side / 2)]


def _listed(array: np.ndarray | None) -> list | None:
    return None if array is None else _plain(array, 6)


def _plain(array: np.ndarray, digits: int) -> list:
    return np.round(np.asarray(array, dtype=np.float64), digits).tolist()
