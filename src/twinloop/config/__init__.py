"""The plant file: its models, its errors in words, and what the parts are built of."""
