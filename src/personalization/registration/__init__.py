"""A predicted mesh to camera space, by its keypoints and silhouette."""
