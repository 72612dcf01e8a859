"""Benchmarks: times as ratios within one run where possible; ``make bench`` runs the first."""
