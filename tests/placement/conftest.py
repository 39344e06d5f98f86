"""How hypothesis runs here: without a deadline per example, because a busy machine is not a broken placement."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("placement", deadline=None)
settings.load_profile("placement")
