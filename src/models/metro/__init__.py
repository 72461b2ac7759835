"""METRO (Lin et al., CVPR 2021): a transformer over the joints and vertices of a template hand."""
