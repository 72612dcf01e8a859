"""Simulations: the loop with an oracle annotator, whose answers come from ground truth."""
