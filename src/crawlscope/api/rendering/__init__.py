"""The text of reports, for CLI and MCP."""
