"""Where the library keeps what it has made for this user: converted models, compiled operations."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$LATENTWEAVER_CACHE, else latentweaver/ in the user's cache folder."""
    if given := os.environ.get("LATENTWEAVER_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentweaver"
