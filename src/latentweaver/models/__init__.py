"""Reasoners, one family a file, each readable alone; `blocks` and `cores` are what they share."""

# First of all the Auto classes, whose arrival imports our models (see `registration`): before any of our own modules is half
# read, so that each can be the first that somebody imports.
import transformers.models.auto.modeling_auto  # noqa: F401
