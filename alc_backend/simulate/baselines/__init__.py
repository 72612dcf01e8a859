"""The superpixel-based active learning that the paper compares with, written from its descriptions.

Spx (Cai et al., CVPR 2021), MerSpx (Kim et al., ICCV 2023), MulSpx (Hwang et al., NeurIPS 2023).
"""
