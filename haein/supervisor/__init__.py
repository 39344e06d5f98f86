"""Starts every part of an embedded Haein, watches over it and stops it; knows no Django and no third-party package."""
