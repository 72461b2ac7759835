"""WebDataset tars of any data set."""
