"""A person with a browser, as far as logging in goes: browser.py ISSUER CA CLIENT USER PASSWORD

Logs in at the issuer (authorization code with PKCE), and prints what an exec plugin of kubectl prints.
"""
import base64
import hashlib
import json
import re
import secrets
import ssl
import sys
import urllib.parse
import urllib.request

issuer, authority, client, user, password = sys.argv[1:6]
redirect = "http://127.0.0.1/callback"


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


tls = ssl.create_default_context(cafile=authority)
opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=tls), urllib.request.HTTPCookieProcessor())


def ask(url, form=None):
    """Where it leads, or what it says."""
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with opener.open(url, data, timeout=30) as answer:
            return None, answer.read().decode()
    except urllib.error.HTTPError as error:
        if error.code in (302, 303):
            return urllib.parse.urljoin(url, error.headers["location"]), None
        sys.exit(f"{url}: {error.code} {error.read().decode()}")


_, text = ask(f"{issuer}/.well-known/openid-configuration")
configuration = json.loads(text)
verifier, state, nonce = (secrets.token_urlsafe(32) for _ in range(3))
challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
query = urllib.parse.urlencode({
    "client_id": client, "redirect_uri": redirect, "response_type": "code", "scope": "openid email", "state": state,
    "nonce": nonce, "code_challenge": challenge, "code_challenge_method": "S256"})
login, _ = ask(f"{configuration['authorization_endpoint']}?{query}")
request = re.search("authRequestID=([^&]+)", login).group(1)
callback, _ = ask(login, {"id": request, "username": user, "password": password})
back, _ = ask(callback)
found = urllib.parse.parse_qs(urllib.parse.urlparse(back).query)
assert found["state"] == [state], found
_, text = ask(configuration["token_endpoint"], {
    "grant_type": "authorization_code", "code": found["code"][0], "redirect_uri": redirect, "client_id": client,
    "code_verifier": verifier})
print(json.dumps({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
                  "status": {"token": json.loads(text)["id_token"]}}))
