"""Pictures like the world: any hand, posture, light, camera and background, rendered with Embree.

Rendered are *cut-outs* (a hand with its forearm, alpha, labels) and *backgrounds*; pictures are mixed of them, once
for a data set on disk (`writer`) and anew at every step of a training (`mixing`, on the GPU).
"""
