"""A posed hand's skeleton and its motion in files that animation programs open."""
