"""CVAT as the annotation tool: what it runs of this backend. Needs the extra `cvat`."""
