"""Messages nobody would write, against both dialects.

In CI a few thousand; `WORLDLINE_FUZZ_MESSAGES=1000000` says how many instead:

    WORLDLINE_FUZZ_MESSAGES=1000000 python -m pytest tests/fuzz
"""
