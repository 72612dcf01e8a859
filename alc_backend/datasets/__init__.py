"""Readers and writers of label-map datasets."""
