"""The demo: a FastAPI service that answers at once and lets its background tasks run on."""
