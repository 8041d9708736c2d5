"""The demo: a made-up world with its posters, the best ranking possible in it, and the recipe that runs on it."""
