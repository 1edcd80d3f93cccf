"""A person with a browser, as far as logging in goes: browser.py CA USER PASSWORD URL

Visits the URL of a login at an issuer, gives name and password, and goes where that leads.
"""
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

authority, user, password, url = sys.argv[1:5]


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


tls = ssl.create_default_context(cafile=authority)
opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=tls), urllib.request.HTTPCookieProcessor())


def ask(url, form=None):
    """Where it leads."""
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        opener.open(url, data, timeout=30).read()
    except urllib.error.HTTPError as error:
        if error.code in (302, 303):
            return urllib.parse.urljoin(url, error.headers["location"])
        sys.exit(f"{url}: {error.code} {error.read().decode()}")
    return None


login = ask(url)
request = re.search("authRequestID=([^&]+)", login).group(1)
callback = ask(login, {"id": request, "username": user, "password": password})
ask(ask(callback))
