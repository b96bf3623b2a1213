"""Ranks as threads, where tests look for them."""

from worldline.runtime.parallel.threads import on_ranks as on_ranks
