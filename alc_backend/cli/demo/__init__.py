"""`alc demo`: Label Studio, the backend and a dataset, started and connected by one command."""
