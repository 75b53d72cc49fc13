"""Measurements for monitoring systems: `conventions` names them, `meters` counts them in each process, and
`reports` adds them up over all processes in the database."""
