"""Where the points of a source of keypoints lie on the hand, and how sure they are."""
