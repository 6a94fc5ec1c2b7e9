# Names commands, nothing else: what they do is in the tools they call.
.PHONY: venv demo test test-all test-engine check lock
