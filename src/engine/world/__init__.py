"""The hand detector and the keypoint network for pictures of the world: trained on mixed renders, then calibrated."""
