"""What tests of several areas share: the service as users start it, its producers, fake servers."""
