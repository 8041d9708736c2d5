"""Comes before the real torch on the path of `make test-quick`: whatever loads torch there fails."""

raise ImportError("make test-quick runs tests that load no torch; move this one out of its list, or load torch later")
