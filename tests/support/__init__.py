"""Helpers of tests of several areas: the service as users start it, its producers, fake servers."""
