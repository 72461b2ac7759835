"""Pictures and videos that a person brings: image, camera, detector, estimator, gallery."""
