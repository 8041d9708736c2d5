"""`mllmrec doctor`: packages, machine, memory plan, and the state of a workspace."""
