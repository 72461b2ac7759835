"""Convolution on meshes in native torch: spirals, sparse pooling and the hierarchy they live on."""
