"""The mathematics of Active Label Correction on plain arrays: no files, no web, no network.

Conventions, everywhere in this package:

- ``probabilities``: float32 (C, H, W), softmax over C at every pixel;
- ``labels``: uint8 (H, W) class ids, 255 = void;
- ``superpixels``: int32 (H, W), 0 = not queryable, 1.. = superpixel ids.
"""
