"""Which question comes next: what the answers teach, and the plan that is made of it.

``learning`` knows, of every superpixel of a round, what it probably is; ``planning`` decides what
is asked next; ``asking`` brings a plan into Label Studio. ``auditing`` measures how often the
machine is right, and ``relabelling`` lets it write what it has earned to.
"""
