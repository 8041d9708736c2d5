"""Images: finding and reading them, and putting what they show into words."""
