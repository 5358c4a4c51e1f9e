"""Hearing MQTT brokers: patterns, payloads, one connection, and the source made of them."""
