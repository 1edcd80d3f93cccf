"""A collector of traces, as far as a test needs one: collector.py ADDRESS PORT

Prints each batch as a line: its trace ids in hexadecimal, and the texts in it.
"""
import http.server
import re
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        # Field 1 of a span, 16 bytes.
        traces = {match.hex() for match in re.findall(rb"\x0a\x10(.{16})\x12\x08", body, re.DOTALL)}
        texts = [text.decode() for text in re.findall(rb"[ -~]{3,}", body)]
        print(" ".join(sorted(traces)), "|", " | ".join(texts), flush=True)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
