"""Attempts: claiming a job, holding its lease, writing under its fence."""
