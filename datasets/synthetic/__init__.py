"""Synthetic DexYCB: hands that reach, grasp and lift, rendered and written in the official layout.

`data_set.write_data_set` does it all; ``python -m datasets.synthetic --help`` is its command line.
`population` says who is in it, `cameras` where they are filmed from, `motion` (with `grasping`) what happens,
`objects`, `appearance`, `layout`, `background` and `shading` what it looks like, `render` casts the
rays, `dex_ycb_writer` writes the files. Six fixed objects are used, not
DexYCB's twenty, so the official split s3 (unseen objects) has its sequences but not its meaning.

`freihand_writer` and `humbi_writer` write those layouts, with `hand_studio`'s pictures of single hands.
"""
