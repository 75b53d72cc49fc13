"""All routes of the dashboard."""

from crawlscope.api.dashboard import compare, crawl, crawls, page, search, sign_in, system

ROUTERS = tuple(part.router for part in (sign_in, crawls, crawl, page, compare, search, system))
