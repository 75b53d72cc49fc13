"""A flight recorder for crawls: every page from the crawler's webhook to the search index."""

from importlib.metadata import version

__version__ = version("crawlscope")
