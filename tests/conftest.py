"""Fixtures that every tier may ask for."""

pytest_plugins = ["tests.support.databases"]
