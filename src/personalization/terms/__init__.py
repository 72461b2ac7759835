"""Residuals and priors of a hand in a picture, with their Jacobians."""
