"""The page on the dashboard names each of its addresses."""

from fastapi.routing import APIRoute

from crawlscope.api.dashboard.routes import ROUTERS
from tests.support.documentation import Section, page


def test_every_page_is_documented_and_no_other():
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    shown = {route.path for route in routes if "GET" in (route.methods or ())}
    assert set(Section("", page("docs/dashboard.md")).first_names("address")) == shown
