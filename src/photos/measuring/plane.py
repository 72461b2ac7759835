"""A card or a sheet of paper in a picture: its corners tell the plane that it lies in, the plane tells millimetres."""

from __future__ import annotations

import itertools
import logging

import cv2
import numpy as np

from src.photos.image import UnusableImage

logger = logging.getLogger(__name__)

#: Width and height, mm: of bank cards (ISO/IEC 7810 ID-1), of A4 paper and of US Letter.
RECTANGLES = {"card": (85.60, 53.98), "paper": (297.0, 210.0), "letter": (279.4, 215.9)}
#: What a sheet may be taken for, and how much better (of `shape_error`) it fits that, to be named.
_OTHER = {"paper": "letter", "letter": "paper"}
_CLEARLY = 0.02
#: Share of the picture that a rectangle must fill, and how far its shape may be off a rectangle of those proportions.
LEAST_AREA, LARGEST_ERROR = 0.004, 0.08
#: The same of corners that somebody gave, by a camera that may be a guess. A short side first would be 0.5 to 0.6.
LARGEST_GIVEN_ERROR = 0.3
#: Of each side the middle part tells its line: cards have round corners.
_MIDDLE = (0.2, 0.8)
_SEARCH_SIDE = 1000  # pixels of the longer side in which it is looked for


def find_rectangle(image: np.ndarray, kind: str, K: np.ndarray) -> np.ndarray:
    """Corners of a card or sheet in a picture.

    Args:
        image: (H,W,3) uint8 RGB; kind: a key of `RECTANGLES`; K: (3,3) px, a guess will do.

    Returns:
        (4,2) px, about the outline, the first side being a long one.

    Raises:
        UnusableImage: there is none, or another sheet; says what helps.
    """
    factor = min(1.0, _SEARCH_SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(factor * side)) for side in image.shape[1::-1])
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (5, 5), 0)
    best, kinds = None, [one for one in (kind, _OTHER.get(kind)) if one]
    for outline in _outlines(small):
        corners = _corners(outline)
        if corners is None:
            continue
        corners = (corners + 0.5) / factor - 0.5
        for turned in (corners, np.roll(corners, -1, axis=0)):
            error = min(shape_error(homography(turned, one), K) for one in kinds)
            # Of rectangles inside each other (a stripe, a frame) the outer one is meant.
            if error < LARGEST_ERROR and (best is None or _area(turned) > _area(best)):
                best = turned
    best = None if best is None else refined(image, best)
    # Outlines in the small picture are a pixel or two wide of the edge, which makes longer cards look like this one.
    if best is None or min(shape_error(homography(best, one), K) for one in kinds) >= LARGEST_ERROR:
        width, height = RECTANGLES[kind]
        raise UnusableImage(
            f"no {kind} of {width:g} x {height:g} mm is found; lay it whole beside the hand, on a ground of another "
            "brightness, or give its corners with --corners"
        )
    _check_sheet(best, kind, K)
    return best


def homography(corners: np.ndarray, kind: str) -> np.ndarray:
    """(3,3) from millimetres in the plane to pixels, by a rectangle's corners (4,2) px, a long side first."""
    width, height = RECTANGLES[kind]
    plane = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    rows = []
    for (x, y), (u, v) in zip(plane, np.asarray(corners, dtype=np.float64), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
    found = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    return found / found[2, 2]


def shape_error(plane_to_image: np.ndarray, K: np.ndarray) -> float:
    """How far a plane's axes, seen by this camera, are from equally long and at right angles; 0: a true rectangle."""
    x, y = (np.linalg.inv(K) @ plane_to_image)[:, :2].T
    longer, shorter = max(np.linalg.norm(x), np.linalg.norm(y)), min(np.linalg.norm(x), np.linalg.norm(y))
    return float(max(1 - shorter / longer, abs(x @ y) / (longer * shorter)))


def check_corners(corners: np.ndarray, kind: str, K: np.ndarray) -> np.ndarray:
    """Corners (4,2) px that somebody gave, if they can be that rectangle's; a warning if they hardly can.

    Raises:
        UnusableImage: not finite, three in a line, or another rectangle's.
    """
    turns = np.roll(corners, -1, axis=0) - corners
    turns = np.array([a[0] * b[1] - a[1] * b[0] for a, b in zip(turns, np.roll(turns, -1, axis=0), strict=True)])
    convex = np.isfinite(turns).all() and (np.abs(turns) > 1).all() and abs(np.sign(turns).sum()) == 4
    error = shape_error(homography(corners, kind), K) if convex else np.inf
    if not error < LARGEST_GIVEN_ERROR:
        width, height = RECTANGLES[kind]
        raise UnusableImage(
            f"--corners {np.round(corners, 1).ravel().tolist()} are no {kind}'s of {width:g} x {height:g} mm; "
            "give them in pixels, one after the other about its outline, beginning with a long side"
        )
    _check_sheet(corners, kind, K)
    if error > LARGEST_ERROR:
        logger.warning(
            "--corners are %.0f%% off a %s's proportions as this camera sees them, and lengths as much: is it one, "
            "and is the lens known?",
            100 * error, kind,
        )  # fmt: skip
    return corners


def _check_sheet(corners: np.ndarray, kind: str, K: np.ndarray) -> None:
    """Raise UnusableImage if the corners (4,2) px are those of another sheet of paper: hands would be 6% too long."""
    other = _OTHER.get(kind, kind)
    own, theirs = (shape_error(homography(corners, one), K) for one in (kind, other))
    if theirs + _CLEARLY < own:
        width, height = RECTANGLES[other]
        raise UnusableImage(
            f"this sheet has the proportions of {width:g} x {height:g} mm; give the picture as --{other}"
        )


def points_mm(pixels: np.ndarray, plane_to_image: np.ndarray, heights: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Where pixels (N,2) lie in the plane's axes (N,2), mm, of points ``heights`` (N,) mm above it.

    Without the heights a hand of 190 mm seen from 40 cm would come out 5 mm too long. K (3,3) px may be a guess: it
    says from how far the plane is seen, and a tenth of its focal length is half a millimetre.
    """
    columns = np.linalg.inv(K) @ plane_to_image
    columns /= np.sqrt(np.linalg.norm(columns[:, 0]) * np.linalg.norm(columns[:, 1])) * np.sign(columns[2, 2])
    x, y, origin = columns.T
    up = np.cross(x, y)
    up *= -np.sign(up @ origin)  # towards the camera
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(K).T
    # origin + a x + b y + height up = s ray
    found = [
        np.linalg.solve(np.c_[x, y, -ray], -(origin + height * up)) for ray, height in zip(rays, heights, strict=True)
    ]
    return np.array(found)[:, :2]


def _area(corners: np.ndarray) -> float:
    return float(cv2.contourArea(corners.astype(np.float32)))


def _outlines(image: np.ndarray) -> list[np.ndarray]:
    """Outlines (M,2) px of regions that differ from what is around them, in any colour channel."""
    found, least = [], LEAST_AREA * image.shape[0] * image.shape[1]
    for channel in cv2.split(image):
        otsu, split = cv2.threshold(channel, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        masks = [split, 255 - split]
        masks += [cv2.threshold(channel, level, 255, cv2.THRESH_BINARY)[1] for level in (60, 100, 140, 180, 215)]
        edges = cv2.dilate(cv2.Canny(channel, 0.3 * otsu, 0.7 * otsu), np.ones((3, 3), np.uint8))
        for mask in (*masks, edges):
            for outline in cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
                points = outline[:, 0]
                whole_inside = points.min() > 1 and (points.max(axis=0) < np.array(mask.shape[::-1]) - 2).all()
                if whole_inside and cv2.contourArea(outline) > least:
                    found.append(points)
    return found


def refined(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Corners (4,2) px where the edges along the sides meet, each where the picture changes most, to a part of a pixel.

    A card is small: one pixel at a corner is 4 degrees of tilt, and 3% of a hand that lies a hand's length away.
    """
    grey = cv2.GaussianBlur(image, (3, 3), 0).astype(np.float32)
    for share in (0.03, 0.012):
        lines = []
        for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            along = other - one
            length = np.linalg.norm(along)
            across = np.array([-along[1], along[0]]) / length
            reach = max(4.0 if share < 0.02 else 6.0, share * length)
            steps = np.arange(-reach, reach + 0.1, 0.25)
            middles = one + np.linspace(*_MIDDLE, 100)[:, None] * along
            places = (middles[:, None] + steps[None, :, None] * across).astype(np.float32)
            profile = cv2.remap(grey, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            change = np.abs(profile[:, 4:] - profile[:, :-4]).sum(axis=2)  # over a pixel
            inner = steps[2:-2]
            peak = inner[(change * np.exp(-2 * (inner / reach) ** 2)).argmax(axis=1)][:, None]
            weight = np.where(np.abs(inner - peak) < 2, change, 0.0) ** 2
            place = (weight * inner).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
            lines.append(_line(middles + place[:, None] * across))
        corners = _meetings(lines)
    return corners


def _line(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Normal (2,) and offset of the line through points (N,2), outliers apart."""
    dx, dy, x, y = cv2.fitLine(points.astype(np.float32), cv2.DIST_HUBER, 0, 0.01, 0.01).ravel().astype(np.float64)
    return np.array([-dy, dx]), -dy * x + dx * y


def _meetings(lines: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Where each line meets the one before it (4,2); NaN where they are all but parallel."""
    found = []
    for (normal, offset), (other, other_offset) in zip(lines[-1:] + lines[:-1], lines, strict=True):
        both = np.stack([normal, other])
        parallel = abs(np.linalg.det(both)) < 0.2
        found.append(np.full(2, np.nan) if parallel else np.linalg.solve(both, [offset, other_offset]))
    return np.array(found)


def _corners(outline: np.ndarray) -> np.ndarray | None:
    """Corners (4,2) of a four-sided outline (M,2): where the lines along its sides meet; None: it has not four."""
    hull = cv2.convexHull(outline.astype(np.int32))
    if cv2.contourArea(outline.astype(np.int32)) < 0.95 * cv2.contourArea(hull):
        return None
    rough = None
    for tolerance in (0.02, 0.03, 0.05, 0.08):
        polygon = cv2.approxPolyDP(hull, tolerance * cv2.arcLength(hull, True), True)[:, 0].astype(np.float64)
        if len(polygon) == 4:
            rough = polygon
            break
    if rough is None:
        return None
    lines = []
    for one, other in zip(rough, np.roll(rough, -1, axis=0), strict=True):
        along = other - one
        length = np.linalg.norm(along)
        place = (outline - one) @ along / length**2
        off = np.abs((outline - one) @ np.array([-along[1], along[0]]) / length)
        side = outline[(place > _MIDDLE[0]) & (place < _MIDDLE[1]) & (off < 0.05 * length)]
        if len(side) < 8:
            return None
        lines.append(_line(side))
    corners = _meetings(lines)
    away = max(np.linalg.norm(corners - rough, axis=1))
    smallest = min(np.linalg.norm(a - b) for a, b in itertools.pairwise(corners))
    return corners if away < 0.25 * smallest else None  # of NaN too
