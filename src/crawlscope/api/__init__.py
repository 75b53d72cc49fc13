"""The HTTP process: routes, MCP tools, dashboard, and the client of CLI and MCP."""
