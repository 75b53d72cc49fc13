"""The built-in crawler: follows the links of a website and tells of it as Firecrawl would."""

from crawlscope.crawler.crawl import CrawlProgress, CrawlRequest, CrawlSummary, Deliver, run_crawl
from crawlscope.crawler.sender import WebhookSender

__all__ = ["CrawlProgress", "CrawlRequest", "CrawlSummary", "Deliver", "WebhookSender", "run_crawl"]
