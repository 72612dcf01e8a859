"""How long to wait before what has failed is tried again: one policy for all that waits.

Touches nothing: the callers keep the number of tries and the moment of the next one in the
database. (Requests that are repeated at once, inside a process, are the client's own affair.)
"""

from __future__ import annotations

FIRST_S, LONGEST_S = 5, 300
"""The first pause, and the longest one."""


def pause_after(tries: int) -> int:
    """Seconds to wait after so many failed tries (1, 2, …): 5, then twice as long up to 300."""
    doublings = min(max(tries, 1) - 1, LONGEST_S.bit_length())
    return min(FIRST_S << doublings, LONGEST_S)
