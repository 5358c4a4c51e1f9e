"""Sources hear the plant: MQTT, OPC UA, files, and the clock."""
