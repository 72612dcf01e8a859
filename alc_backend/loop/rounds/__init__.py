"""Rounds: train, score, publish a batch of queries, and look after the queue while it is open.

Who calls whom: commands and the service call ``lifecycle`` (start, cancel) and ``status``; workers
call ``executor``, which claims a part by ``work_items``, does it by the module of its step
(``preparation``, ``training``, ``scoring``, ``publishing``; the chores ``adjudication`` and
``cleanup``), and finishes it by ``work_items``. ``lifecycle`` and ``work_items`` ask ``plan`` which
parts a step has. Nothing below calls ``executor``.
"""
