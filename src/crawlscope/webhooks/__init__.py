"""Deliveries: parsing, acceptance, refusals and replay."""
