"""The demo plant: simulated reactors behind a real broker and a real OPC UA server."""
