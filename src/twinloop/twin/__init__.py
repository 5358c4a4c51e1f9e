"""Physical models, their integration, and the twin that drives them."""
