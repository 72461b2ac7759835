"""DexYCB: files, labels and samples (`datasets.sample`)."""
