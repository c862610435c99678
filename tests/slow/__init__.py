"""What takes minutes: real trainings, environments that are downloaded, published figures. `make test-lab` runs it."""
