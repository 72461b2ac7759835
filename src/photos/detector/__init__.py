"""Hands and their 2D keypoints in any picture, found by a detector that is not ours (requirements-detect.txt)."""

from src.photos.detector.detection import Detection, Finder, mirrored
from src.photos.detector.mediapipe_hands import MediapipeHands, find_hands, install_advice, is_installed

__all__ = [
    "Detection",
    "Finder",
    "MediapipeHands",
    "find_hands",
    "install_advice",
    "is_installed",
    "mirrored",
]
