"""The demo: a whole installation in a temporary folder, and a tour through it over HTTP."""
