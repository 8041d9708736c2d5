"""Files on disk: the workspace, manifests, locks, working logs, long JSON files."""
