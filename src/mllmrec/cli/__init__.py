"""The command line: verbs, what a terminal shows, and what went wrong in words."""
