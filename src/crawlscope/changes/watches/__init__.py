"""changedetection.io's own API: having it watch the pages of a crawl."""
