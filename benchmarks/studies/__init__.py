"""Measurements behind single choices; each file says what it printed."""
