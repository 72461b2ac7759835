"""Another estimator's hands as evidence: one person's shape from many of them, and each of them again with it."""
