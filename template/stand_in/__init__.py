"""The stand-in hand: a licence-free parametric right hand of exactly MANO's array shapes.

``python -m template.stand_in --build`` makes ``template/stand_in.npz``; ``--check`` verifies it and
``--sheet`` draws it. Only the builder needs scikit-image, fast-simplification and trimesh. Importing
the package imports nothing; `template.stand_in.grasps` needs numpy alone.
"""
