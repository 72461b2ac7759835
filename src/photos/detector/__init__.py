"""Hands and their 2D keypoints in any picture, found by a detector that is not ours (requirements-detect.txt)."""

from src.photos.detector.detection import Detection, mirrored, of_side
from src.photos.detector.mediapipe_hands import MediapipeHands, find_hands

__all__ = ["Detection", "MediapipeHands", "find_hands", "mirrored", "of_side"]
