"""The one thin client over the `kubernetes` package's asyncio client, and leader election on top of it."""
