"""Annotations: what people said in Label Studio, on its way into the ledger.

``webhooks`` keeps what Label Studio's events name and reads it from there later; ``reconciliation``
pages through Label Studio for those that were lost. Both give annotations of the query project to
``answers`` and those of the dataset project to ``mask_edits``, which say what became of them
(``outcomes``). ``recovery`` makes queries again that an older backup does not know; ``history``
shows the ledger and undoes entries.
"""
