"""Routing: the steps of one request, from forecast and pricing to decision, execution and fallbacks."""
