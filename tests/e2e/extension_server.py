"""An extension API server, as far as trust goes: extension_server.py IP CERTIFICATE KEY REQUESTHEADER_CA GROUP

Asks for a client certificate of the CA that the cluster publishes for this purpose, refuses every other, and says whom it saw
and for whom he spoke. Prints its port.
"""
import http.server
import json
import ssl
import sys

ip, certificate, key, authority, group = sys.argv[1:6]
version = f"{group}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        shown = self.connection.getpeercert() or {}
        names = dict(pair for part in shown.get("subject", ()) for pair in part)
        if self.path.split("?")[0].rstrip("/") == f"/apis/{version}":
            answer = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": []}
        else:
            answer = {
                "kind": "WhoAmI",
                "apiVersion": version,
                "client": names.get("commonName", ""),
                "user": self.headers.get("X-Remote-User", ""),
            }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((ip, 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.verify_mode = ssl.CERT_OPTIONAL
context.load_verify_locations(authority)
# The handshake is the connection's own thread's: one that says nothing must not keep the others out.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(f"port {server.server_address[1]}", flush=True)
server.serve_forever()
