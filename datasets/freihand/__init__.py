"""FreiHAND: files, labels and samples (`datasets.sample`)."""
