"""The benchmarks and the soak: what is measured here is not shipped."""
