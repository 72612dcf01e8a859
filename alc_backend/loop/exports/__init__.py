"""Exports: what leaves the store, and how a store comes back.

``export`` writes the repaired dataset, with its ``changes``, ``data_card`` and ``manifest``, from a
``snapshot``; ``report`` tells what a project has reached. ``backup`` writes everything into one
file and ``restore`` brings it back (``archive`` is that file's format); ``rebuild`` makes a lost
store again from Label Studio. Commands call these; nothing in the loop does.
"""
