"""The stages of a recipe: which wait for which, one by one or side by side, and what they brought."""
