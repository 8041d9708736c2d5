"""Stands before the real torch on the path of `make test-quick`: a quick test, or a process it starts, that loads it fails."""

raise ImportError("make test-quick runs tests that load no torch; move this one out of its list, or load torch later")
