"""Where the points of a source of keypoints lie on the hand, and how sure they are."""

from src.personalization.landmarks.model import LandmarkModel, find_landmarks, joints_model, load_landmarks

__all__ = ["LandmarkModel", "find_landmarks", "joints_model", "load_landmarks"]
