"""OPOM in JAX: one invisible mask per person against unauthorised face recognition.

Axis letters, used in shapes, einsum strings and docstrings everywhere:
`P` people, `N` photos of a person, `H W C` height, width, colour channels (RGB),
`D` embedding, `G` gallery of distractors, `T` steps, `B` a flat batch of images.

Images are RGB on the 0..255 scale; masks are differences on that scale.
"""

__version__ = "0.1.0"
