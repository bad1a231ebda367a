"""The client for asyncio, which is the source of the one for threads: `client/derive.py` makes that from it."""
