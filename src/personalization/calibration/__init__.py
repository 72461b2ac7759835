"""A person's hand shape from several images: averages, bundle calibration, cues, identity, merging."""
