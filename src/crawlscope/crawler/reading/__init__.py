"""From the bytes that a server sent to what a page says: its text as Markdown, its title, its links."""
