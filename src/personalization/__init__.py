"""Personalisation: many images to one identity (calibration), keypoints to pose and translation (fitting)."""
