"""Batched Levenberg-Marquardt, robust losses, status of a solution."""
