"""Ranking candidates, metrics with intervals, baselines, comparisons."""
