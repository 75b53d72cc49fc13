"""The pages for people: rendered on the server, complete without a script, live with one."""
