"""The state of an installation: database, files, and the ledger that label maps are replayed from.

``database`` opens the store, through ``connections`` and ``migrate``; ``models`` has the tables,
``column_types``, ``round_states`` and ``round_config`` what stands in them. ``storage`` keeps named
files, ``files`` those of a project. ``ledger`` records what annotators did and judges it,
``label_maps`` replays it, ``importing`` brings datasets in. Nothing here knows Label Studio.
"""
