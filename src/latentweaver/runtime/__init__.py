"""Fast generation: the cache, the loop that thinks until a rule says enough, and the one that writes tokens."""
