"""A browser signs in once; its cookie then counts as the secret, but not for requests of other sites."""

import pytest

from crawlscope.api.http.access import SESSION_COOKIE, new_session
from crawlscope.core.secrets import SIGN_IN_FILE, new_sign_in_token
from tests.api.dashboard.conftest import FROM_OTHER_SITE, FROM_OWN_PAGE, signed_in
from tests.api.http.conftest import SECRET, Service

HTML = {"Accept": "text/html"}


async def test_a_person_is_led_to_the_sign_in_page_and_back(service: Service):
    for path, back in (("/", "%2F"), ("/crawls/x%2F1?sort=url", "%2Fcrawls%2Fx%252F1%3Fsort%3Durl")):
        answer = await service.anonymous.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={back}")
    form = await service.anonymous.get("/sign-in?next=/search%3Fq%3Dx", headers=HTML)
    assert (form.status_code, 'value="/search?q=x"' in form.text) == (200, True)
    answer = await service.anonymous.post(
        "/sign-in", data={"secret": SECRET, "next": "/search?q=x"}, headers=FROM_OWN_PAGE
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/search?q=x")
    cookie = answer.headers["set-cookie"].lower()
    assert all(each in cookie for each in ("httponly", "samesite=strict", "max-age=2592000"))
    assert "secure" not in cookie  # over plain HTTP the browser would not send it back


async def test_programs_get_401_and_the_start_page_leads_anybody(service: Service):
    assert (await service.anonymous.get("/search")).status_code == 401
    assert (await service.anonymous.get("/api/stats", headers=HTML)).status_code == 401
    assert (await service.anonymous.get("/")).status_code == 303
    assert (await service.anonymous.post("/crawls", headers=HTML)).status_code == 401


@pytest.mark.parametrize("secret", ["", "a guess", f"{SECRET}x"])
async def test_a_wrong_secret_is_refused_in_words(service: Service, secret: str):
    answer = await service.anonymous.post("/sign-in", data={"secret": secret}, headers=FROM_OWN_PAGE)
    assert answer.status_code == 401
    assert "not the API secret" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"])
async def test_a_sign_in_leads_to_no_other_site(service: Service, elsewhere: str):
    answer = await service.anonymous.post(
        "/sign-in", data={"secret": SECRET, "next": elsewhere}, headers=FROM_OWN_PAGE
    )
    assert answer.headers["location"] == "/"


async def test_another_site_cannot_sign_a_browser_in(service: Service):
    answer = await service.anonymous.post("/sign-in", data={"secret": SECRET}, headers=FROM_OTHER_SITE)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


async def test_the_cookie_counts_as_the_secret(service: Service):
    client = await signed_in(service)
    assert (await client.get("/api/stats")).status_code == 200
    assert (await client.post("/api/crawls/x/retry", headers=FROM_OWN_PAGE)).status_code == 404


async def test_another_site_cannot_act_with_the_cookie(service: Service):
    client = await signed_in(service)
    for path in ("/api/crawls/x/retry", "/crawls/x/retry", "/crawls", "/sign-out"):
        for headers in (
            FROM_OTHER_SITE,
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "same-site"},
            {},
        ):
            assert (await client.post(path, headers=headers)).status_code == 401, (path, headers)
    own = {"Origin": "http://service"}  # browsers leave Sec-Fetch-Site out over plain HTTP
    assert (await client.post("/api/crawls/x/retry", headers=own)).status_code == 404


@pytest.mark.parametrize(
    "cookie",
    ["", "x", "WyJ4Il0.x.y", new_session("another secret")],
    ids=["empty", "short", "unsigned", "of another secret"],
)
async def test_a_forged_cookie_is_worth_nothing(service: Service, cookie: str):
    service.anonymous.cookies.set(SESSION_COOKIE, cookie)
    assert (await service.anonymous.get("/api/stats")).status_code == 401


async def test_signing_out_ends_the_session_of_the_browser(service: Service):
    client = await signed_in(service)
    answer = await client.post("/sign-out", headers=FROM_OWN_PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert (await client.get("/api/stats")).status_code == 401


async def test_a_link_signs_in_once_and_not_by_being_looked_at(service: Service):
    folder = service.parts.settings.data_dir
    token = new_sign_in_token(folder)
    for _ in range(2):
        assert token in (await service.anonymous.get(f"/sign-in?token={token}", headers=HTML)).text
    used = [
        await service.anonymous.post("/sign-in", data={"token": token}, headers=FROM_OWN_PAGE)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in used] == [303, 401]
    assert "used before" in used[1].text
    assert not (folder / SIGN_IN_FILE).exists()


async def test_an_old_or_wrong_link_does_not_sign_in(service: Service):
    import os

    folder = service.parts.settings.data_dir
    for wrong in ("x", "\udcff"):
        assert (await _with_token(service, wrong)).status_code == 401
    first, second = new_sign_in_token(folder), new_sign_in_token(folder)
    assert (await _with_token(service, first)).status_code == 401
    assert (folder / SIGN_IN_FILE).stat().st_mode & 0o077 == 0
    os.utime(folder / SIGN_IN_FILE, (0, 0))
    assert (await _with_token(service, second)).status_code == 401


async def _with_token(service: Service, token: str):
    data = {"token": token.encode("utf-8", "replace").decode()}
    return await service.anonymous.post("/sign-in", data=data, headers=FROM_OWN_PAGE)


async def test_the_sign_in_form_may_not_be_large(service: Service):
    answer = await service.anonymous.post("/sign-in", data={"secret": "x" * 100_000}, headers=FROM_OWN_PAGE)
    assert answer.status_code == 413


async def test_pages_forbid_scripts_of_others(service: Service):
    for path in ("/sign-in", "/"):
        answer = await (await signed_in(service)).get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "<style" not in answer.text
        assert "style=" not in answer.text
        assert " onclick" not in answer.text
