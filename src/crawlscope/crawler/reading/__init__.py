"""From the bytes of a server to the content of a page: its text as Markdown, its title, its links."""
