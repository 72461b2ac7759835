"""Calibrated cameras: lenses with distortion, their files, perspective crops of what they see, and where they stand."""
