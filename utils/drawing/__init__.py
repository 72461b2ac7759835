"""Overlays, figures, pages, ray casting."""
