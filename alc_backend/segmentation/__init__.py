"""DeepLab-v3+: the network, its training on label maps, and its predictions."""
