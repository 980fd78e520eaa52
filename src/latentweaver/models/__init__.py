"""Reasoners, one family a file, each readable alone; `blocks` and `cores` are what they share."""
