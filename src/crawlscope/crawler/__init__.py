"""The built-in crawler: follows the links of a website and sends the events that Firecrawl would send.

`crawl.run_crawl` runs one crawl, `sender.WebhookSender` carries its events. Nothing is imported here, because
`crawl` brings Crawlee along, which takes a second or two to import.
"""
