"""State estimation: filters, their consistency and their tuning."""
