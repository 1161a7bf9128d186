"""Sound on its way to the network: log-mel examples, separation."""
