"""Films made in the background: a durable queue, the files it makes, and `/v1/videos`."""
