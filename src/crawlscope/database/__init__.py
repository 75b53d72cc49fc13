"""The database: connections, queue, migrations, and the embedded server."""
