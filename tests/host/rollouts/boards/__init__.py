"""Tests of rollouts that need a real agent behind a real sshd."""
