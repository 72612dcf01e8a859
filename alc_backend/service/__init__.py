"""The running backend: ``web`` answers Label Studio and people, ``jobs`` does the slow work.

The two meet in the database, and in Redis, whose queues the web process fills and workers empty.
"""
