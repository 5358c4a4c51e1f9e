"""A store in InfluxDB 1.x, 2.x or 3.x: line protocol in, InfluxQL out, a local journal beside it."""
