"""Lenses with distortion: OpenCV's pinhole (radial, tangential) and its fisheye (Kannala and Brandt, PAMI 2006).

Same frame and pixels as `utils.camera`. Hands are seen through perspective crops (`utils.cameras.views`), keypoints
are undistorted on entry; behind that everything sees a pinhole camera. Written by hand because OpenCV's functions wrap
rays that the polynomial folds back into the picture, and its fixed-point inverse does not converge for wide lenses; the
tests compare with OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from utils.cameras.intrinsics import checked_intrinsics

LENSES = ("pinhole", "fisheye")
#: Numbers of coefficients, in OpenCV's order: k1, k2, p1, p2[, k3[, k4, k5, k6]] and fisheye's k1 to k4.
COUNTS = {"pinhole": (0, 4, 5, 8), "fisheye": (0, 4)}
#: Where a lens's table ends: tan(86 degrees) off the axis, and all the way round.
_REACH = {"pinhole": 14.3, "fisheye": np.pi}
_NEWTON_STEPS = 12


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated lens.

    Attributes:
        K: (3,3) float64, px, the last row (0, 0, 1).
        distortion: (8,) k1, k2, p1, p2, k3, k4, k5, k6 of a pinhole or (4,) of a fisheye; shorter input is filled with
            zeros.
        lens: one of `LENSES`.
        size: width and height of its pictures, px; None if nobody said.
        source: who says so, named in errors.
        limit: how far off the axis the distortion still grows: x/z of a pinhole, radians of a fisheye.

    Raises:
        ValueError: no camera matrix, an unknown lens, a wrong number of coefficients, numbers that are not finite, or
            a distortion that folds the picture over: pixels in the picture that no ray reaches, or several do.
    """

    K: np.ndarray
    distortion: np.ndarray
    lens: str = "pinhole"
    size: tuple[int, int] | None = None
    source: str = "camera"
    limit: float = field(init=False, default=np.inf)
    _table: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False, default=(np.empty(0), np.empty(0)))

    def __post_init__(self) -> None:
        K, given = np.asarray(self.K, np.float64), np.asarray(self.distortion, np.float64)
        if self.lens not in LENSES:
            raise ValueError(f"{self.source}: lens {self.lens!r} is unknown; choose one of {LENSES}")
        if K.ndim != 2:
            raise ValueError(f"{self.source}: K has shape {K.shape}; it must be (3,3)")
        K = checked_intrinsics(K, self.source)
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"{self.source}: a picture of {self.size[0]} x {self.size[1]} pixels is none")
        most = max(COUNTS[self.lens])
        if given.ndim != 1 or (len(given) not in COUNTS[self.lens] and (len(given) < most or given[most:].any())):
            raise ValueError(
                f"{self.source}: {given.size} coefficients for a {self.lens}; it takes {COUNTS[self.lens]} of them "
                "(thin prisms and tilted sensors are not supported: calibrate without them)"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"{self.source}: distortion {given.tolist()} must be finite")
        distortion = np.zeros(max(COUNTS[self.lens]))
        distortion[: len(given)] = given[: len(distortion)]
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "distortion", distortion)
        if self.lens == "fisheye" or distortion.any():
            self._find_limit()
            if self.lens == "pinhole" or self.limit < np.pi:  # else corners without a ray lie beyond a round picture
                self._refuse_folds()

    def _find_limit(self) -> None:
        radius = np.linspace(0, _REACH[self.lens], 16385)
        with np.errstate(all="ignore"):
            distorted = radius * self._factor(radius**2)[0]
            grows = np.diff(distorted) > 0
        end = len(radius) if grows.all() else int(np.argmin(grows)) + 1
        object.__setattr__(self, "limit", float(radius[end - 1]))
        object.__setattr__(self, "_table", (distorted[:end], radius[:end]))

    def _refuse_folds(self) -> None:
        width, height = self.size or (round(2 * self.K[0, 2]) + 1, round(2 * self.K[1, 2]) + 1)
        corners = [np.linspace(-0.5, length - 0.5, 33) for length in (width, height)]
        pixels = np.stack(np.meshgrid(*corners), axis=-1).reshape(-1, 2)
        lost = ~np.isfinite(self.unproject(pixels)).all(axis=-1)
        if lost.any():
            off = pixels[lost] - self.K[:2, 2]
            x, y = pixels[lost][np.linalg.norm(off, axis=1).argmin()]
            # Where the radial part stops growing; with strong tangential terms a pixel nearer may be lost already.
            turn = float(self._table[0][-1] * np.sqrt(self.K[0, 0] * self.K[1, 1]))
            radius = min(turn, float(np.linalg.norm(off, axis=1).min()))
            raise ValueError(
                f"{self.source}: the {self.lens} distortion {self.distortion.tolist()} folds a picture of {width} x "
                f"{height} pixels over at a radius of {radius:.0f} px from its principal point: no single ray reaches "
                f"{lost.mean():.0%} of it, for example pixel {x:.0f}, {y:.0f}. Calibrate with the board in the corners "
                "too, with fewer coefficients or as a fisheye, or give the picture size that the numbers belong to"
            )

    def _factor(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distorted over undistorted radius, and its derivative, by the squared radius (pinhole) or angle (fisheye)."""
        if self.lens == "fisheye":
            return _polynomial(self.distortion, s)
        k1, k2, _, _, k3, *denominator = self.distortion
        top, top_slope = _polynomial((k1, k2, k3), s)
        bottom, bottom_slope = _polynomial(denominator, s)
        return top / bottom, (top_slope * bottom - top * bottom_slope) / bottom**2

    def _bend(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """A pinhole's distorted x, y and its symmetric Jacobian (xx, xy, yy); all without unit."""
        p1, p2 = self.distortion[2:4]
        s = x * x + y * y
        factor, slope = self._factor(s)
        return (
            x * factor + 2 * p1 * x * y + p2 * (s + 2 * x * x),
            y * factor + 2 * p2 * x * y + p1 * (s + 2 * y * y),
            factor + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x,
            2 * x * y * slope + 2 * p1 * x + 2 * p2 * y,
            factor + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x,
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """px (...,2) of points (...,3) in the camera frame, m or any unit; NaN where the lens does not see them."""
        x, y, z = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        with np.errstate(all="ignore"):
            if self.lens == "fisheye":
                off = np.hypot(x, y)
                angle = np.arctan2(off, z)
                bent = angle * self._factor(angle**2)[0]
                scale = np.where(off > 0, bent / off, np.where(z > 0, 1 / z, np.nan))
                plane = np.stack([x * scale, y * scale], axis=-1)
                seen = angle <= self.limit
            else:
                x, y = x / z, y / z
                plane = np.stack(self._bend(x, y)[:2], axis=-1)
                seen = (z > 0) & (np.hypot(x, y) <= self.limit)
        return np.where(seen[..., None], plane @ self.K[:2, :2].T + self.K[:2, 2], np.nan)

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """Unit directions (...,3) in the camera frame of the rays through pixels (...,2); NaN where there is none."""
        centred = np.asarray(pixels, np.float64) - self.K[:2, 2]
        plane = centred @ np.linalg.inv(self.K[:2, :2]).T
        length = np.linalg.norm(plane, axis=-1)
        if not len(self._table[0]):
            radius = length
        else:
            radius = np.interp(length, *self._table, right=np.nan)
        with np.errstate(all="ignore"):
            unit = np.where(length[..., None] > 0, plane / length[..., None], 0.0)
            if self.lens == "fisheye":
                for _ in range(_NEWTON_STEPS):
                    factor, slope = self._factor(radius**2)
                    step = (radius * factor - length) / (factor + 2 * radius**2 * slope)
                    radius = np.clip(radius - step, 0, self.limit)
                return np.concatenate([unit * np.sin(radius)[..., None], np.cos(radius)[..., None]], axis=-1)
            x, y = np.moveaxis(unit * radius[..., None], -1, 0)
            for _ in range(_NEWTON_STEPS if self.distortion.any() else 0):
                bent_x, bent_y, xx, xy, yy = self._bend(x, y)
                off_x, off_y, volume = bent_x - plane[..., 0], bent_y - plane[..., 1], xx * yy - xy * xy
                x, y = x - (yy * off_x - xy * off_y) / volume, y - (xx * off_y - xy * off_x) / volume
            bent_x, bent_y, xx, xy, yy = self._bend(x, y)
            off = np.hypot(bent_x - plane[..., 0], bent_y - plane[..., 1])
            good = (off < 1e-9 * (1 + length)) & (xx * yy - xy * xy > 0) & (xx > 0) & (np.hypot(x, y) <= self.limit)
            ray = np.stack([x, y, np.ones_like(x)], axis=-1)
            return np.where(good[..., None], ray / np.linalg.norm(ray, axis=-1, keepdims=True), np.nan)

    def as_json(self) -> dict[str, object]:
        """Its kind and coefficients, in OpenCV's order."""
        return {"lens": self.lens, "distortion": self.distortion.tolist()}

    def for_picture(self, width: int, height: int) -> CameraModel:
        """The camera of pictures of ``width`` x ``height`` px.

        Raises:
            ValueError: it was calibrated at another size; says what can be done.
        """
        if self.size is None:
            return replace(self, size=(width, height))
        if self.size == (width, height):
            return self
        said = f"{self.source}: belongs to pictures of {self.size[0]} x {self.size[1]} pixels, not {width} x {height}"
        scale = np.array([width, height]) / self.size
        if abs(scale[0] * self.size[1] - height) > 1 and abs(scale[1] * self.size[0] - width) > 1:
            raise ValueError(f"{said}: another aspect ratio, so they were cropped or turned; calibrate at that size")
        raise ValueError(
            f"{said}: if they were resized as a whole, multiply fx, fy, cx and cy by the factor and say the new width "
            "and height; if they were cropped, calibrate at that size"
        )


def _polynomial(coefficients: np.ndarray | list | tuple, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 + c1 s + c2 s^2 + ... and its derivative."""
    value, slope = np.zeros_like(s), np.zeros_like(s)
    for coefficient in (*reversed(coefficients), 1.0):
        slope = slope * s + value
        value = value * s + coefficient
    return value, slope
