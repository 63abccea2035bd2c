"""Where a pipeline runs: put together from settings, as a process, on Lambda or on Ray."""
