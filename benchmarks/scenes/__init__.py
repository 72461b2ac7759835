"""What the benchmarks are run on: simulated people, networks and estimators, and rendered clips."""
