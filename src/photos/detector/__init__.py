"""Hands and their 2D keypoints in any picture, found by a detector that is not ours (requirements-detect.txt)."""
