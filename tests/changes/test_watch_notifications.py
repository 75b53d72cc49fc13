import pytest

from crawlscope.changes.watches import BODY, by_secret, by_token
from tests.support.documentation import page, sections

HOW_TO = {section.title: section for section in sections(page("docs/how-to.md"), level=2)}


def test_the_documented_body_is_the_one_that_watches_get():
    [documented] = HOW_TO["Re-index pages when they change"].blocks("jinja")
    assert documented.strip() == BODY


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("http://127.0.0.1:8108", "post://127.0.0.1:8108/api/webhook/changedetection"),
        ("https://here.example/x", "posts://here.example/x/api/webhook/changedetection"),
    ],
)
def test_the_endpoint_as_apprise_writes_it(address, endpoint):
    assert by_secret(address, "s3cret-_.~") == f"{endpoint}?+X-API-Secret=s3cret-_.~"
    assert by_token(address, "token") == f"{endpoint}/token"


def test_odd_characters_arrive_as_they_are():
    """Found by trying: a header's value is decoded twice on its way, a path once."""
    assert by_secret("http://a", "a+b/{{c%").endswith("=a%252Bb%252F%257B%257Bc%2525")
    assert by_token("http://a", "a+b{{c%").endswith("/a%2Bb%7B%7Bc%25")
