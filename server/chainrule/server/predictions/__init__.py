"""What networks make of inputs: requests put together into batches, computed by processes of their own."""
