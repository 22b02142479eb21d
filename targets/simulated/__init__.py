"""Simulated endpoints: one pure engine model, two drivers (virtual time, and a server in real time)."""
