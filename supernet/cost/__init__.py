"""The costs of a network: parameters, multiply-adds, latency and memory; and limits on them."""
