"""The dashboard at `/ui`: what the router decides, costs and promises, for the people who run the server."""

from eccos_core.server.ui.routes import UI_PATHS, add_ui_routes

__all__ = ["UI_PATHS", "add_ui_routes"]
