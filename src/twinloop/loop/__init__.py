"""The loop: the fold, its cadence, its connections and its figures."""
