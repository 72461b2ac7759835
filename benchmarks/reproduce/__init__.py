"""The results table: every row trained, calibrated, evaluated and fitted, over seeds."""
