"""One exchange with one endpoint: wire formats, the streaming client, simulated endpoints."""
