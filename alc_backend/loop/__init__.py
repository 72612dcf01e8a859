"""The loop of Active Label Correction: from images and answers to label maps and new questions.

The one room that joins the store, Label Studio and the networks. From top to bottom:

- ``overview``: what a project looks like at a glance
- ``exports``: what leaves the store: datasets, reports, backups; and how a store comes back
- ``rounds``: train, score, publish, and the chores of an open round
- ``annotations``: what annotators said, on its way into the ledger
- ``projects``: a project's connection with Label Studio, and its images' first label maps
- ``query_tasks``: correction queries and the tasks of Label Studio that ask them
- ``config``, ``leases``: a round's configuration; which worker has what
"""
