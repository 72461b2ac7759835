"""Metrics over samples, the official definitions, and the official result files."""
