"""Who does the jobs of a rollout: adapters of `jobs.Executor`, a file each, imported only when chosen."""
