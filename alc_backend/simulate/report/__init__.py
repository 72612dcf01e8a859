"""The report: one self-contained page about simulations or a live project, with its plots."""
