"""The built-in crawler: follows the links of a website and tells of it as Firecrawl would.

`crawl.run_crawl` runs one crawl, `sender.WebhookSender` carries its events. Nothing is imported here, because
`crawl` brings Crawlee along, which takes a second or two to import.
"""
