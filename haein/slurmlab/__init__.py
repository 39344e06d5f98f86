"""A real Slurm on this machine alone, for tests, demonstrations and benchmarks; imports nothing of ours."""
