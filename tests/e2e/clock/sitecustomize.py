"""Lets Django tell another time: Python reads this module at its start where it is on the path.

The file that CHAOS_CLOCK names has the seconds by which the clock is ahead, negative ones where it
is behind; it may change at any moment. Tokens and the rest of the machine keep the right time.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

if "CHAOS_CLOCK" in os.environ:
    try:
        from django.utils import timezone
    except ImportError:  # a program of this environment that has no Django
        pass
    else:
        right = timezone.now

        def now():
            return right() + timedelta(seconds=float(Path(os.environ["CHAOS_CLOCK"]).read_text()))

        timezone.now = now
