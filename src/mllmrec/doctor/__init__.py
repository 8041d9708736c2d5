"""`mllmrec doctor`: what is here, what fits, what is missing."""
