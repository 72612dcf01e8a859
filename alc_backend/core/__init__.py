"""The mathematics of Active Label Correction on plain arrays: no files, no web, no network.

Arrays, everywhere in this package:

- ``probabilities``: float32 (C, H, W), f(c; x), the softmax over C classes at every pixel x;
- ``labels``: uint8 (H, W), y(x), class ids, 255 = void;
- ``superpixels``: int32 (H, W), 0 = not queryable, 1.. = superpixel ids.

Terms that acquisition scores are made of:

- predicted class ŷ(x): the most probable class of a pixel;
- self-confidence f(y(x); x), in [0, 1]: the probability that the network gives a pixel's current
  label; where that is void, the probability of ŷ(x);
- doubt: 1 - self-confidence (eq. 8).
"""
