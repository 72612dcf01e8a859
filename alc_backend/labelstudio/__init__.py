"""Everything that knows Label Studio: its API, the query task, regions and projects."""
