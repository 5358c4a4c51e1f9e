"""Real services for tests: found, started on free ports, ended by their own process id."""
