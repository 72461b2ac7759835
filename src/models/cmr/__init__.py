"""The CMR family: cascaded 2D cues and a spiral mesh decoder (Chen et al., CVPR 2021; docs/architectures.md)."""
