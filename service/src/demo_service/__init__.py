"""The demo: a FastAPI service that answers at once and lets its background tasks run on."""

from demo_service.variants import VARIANTS, Variant

__all__ = ["VARIANTS", "Variant"]
