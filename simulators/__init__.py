"""What stands in for plants, brokers and registries: tests, demo and benchmarks use the same."""
