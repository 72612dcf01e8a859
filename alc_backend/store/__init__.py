"""The state: database, array files and the ledger of answers."""
