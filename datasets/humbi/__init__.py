"""HUMBI: files, labels and samples (`datasets.sample`)."""
