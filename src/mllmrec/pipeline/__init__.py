"""Recipes and the runs of their stages: order, processes, time left, and the tables at the end."""
