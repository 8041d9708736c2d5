"""The embedded world: it supplies files and a recipe, and runs nothing."""
