"""Hearing OPC UA servers: NodeIds, one session, its publish loop, and the source made of them."""
