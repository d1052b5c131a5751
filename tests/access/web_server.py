"""A web server for the tests that behaves as badly as it is told: without ranges, with one part only, cutting connections,
freezing, redirecting, lying, slow, wanting tokens, changing its files; and it counts what it is asked."""

import gzip
import hashlib
import hmac
import random
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Behaviour:
    """What a server does; the tests change it while it runs."""

    def __init__(self, folder, **changes):
        self.folder = folder
        self.ranges = "many"  # "one": the first only; "single-200": the whole file for several; "none"
        self.delay = 0  # seconds before each answer
        self.cut = 0  # how likely a body is cut short
        self.errors = 0  # so many answers are 503
        self.frozen = threading.Event()  # no answers while it is set
        self.redirect = None  # prefix of the URLs to go to
        self.shift = 0  # Content-Range lies by so many bytes
        self.longer = 0  # bytes sent beyond what was asked for
        self.merged = False  # neighbouring ranges come as one part
        self.token = None  # wanted as "Authorization: Bearer"
        self.s3 = None  # (key, secret, region): signatures are checked
        self.etag = '"1"'
        self.modified = None
        self.gzip = False
        self.length = True  # Content-Length of whole files is told
        self.requests = []  # (path, Range or None, headers)
        self.random = random.Random(4)
        for name, value in changes.items():
            assert hasattr(self, name)
            setattr(self, name, value)


def signed_for_s3(handler, key, secret, region):
    """AWS Signature Version 4 of a GET without a body, as the server computes it."""
    given = re.match(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d+)/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=(\w+)",
        handler.headers.get("Authorization", ""),
    )
    if not given or given[1] != key or given[3] != region:
        return False
    path, _, query = handler.path.partition("?")
    names = given[4].split(";")
    headers = "".join(f"{name}:{' '.join(handler.headers[name].split())}\n" for name in names)
    canonical = "\n".join([handler.command, path, query, headers, given[4], handler.headers["x-amz-content-sha256"]])
    scope = f"{given[2]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{handler.headers['x-amz-date']}\n{scope}\n{digest}"
    secret_key = ("AWS4" + secret).encode()
    for part in (given[2], region, "s3", "aws4_request"):
        secret_key = hmac.digest(secret_key, part.encode(), "sha256")
    return hmac.compare_digest(hmac.digest(secret_key, text.encode(), "sha256").hex(), given[5])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def refuse(self, code, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def asked(self, size):
        """The ranges of the request, or None."""
        text = self.headers.get("Range")
        if not text or self.server.does.ranges == "none":
            return None
        ranges = [tuple(map(int, part.split("-"))) for part in text.removeprefix("bytes=").split(",")]
        ranges = [(a, min(b, size - 1)) for a, b in ranges if a < size]
        if len(ranges) > 1:
            if self.server.does.ranges == "single-200":
                return None
            if self.server.does.ranges == "one":
                return ranges[:1]
            if self.server.does.merged:
                return [(ranges[0][0], ranges[1][1]), *ranges[2:]]
        return ranges

    def parts(self, data, ranges):
        """Headers and body of an answer with ranges."""
        does, size = self.server.does, len(data)
        told = [(f"bytes {a + does.shift}-{b + does.shift}/{size}", data[a : b + 1]) for a, b in ranges]
        if len(told) == 1:
            return {"Content-Range": told[0][0]}, told[0][1] + b"\0" * does.longer
        body = b"".join(
            b"\r\n--a(b)\r\nContent-Type: x/y\r\nContent-Range: %s\r\n\r\n%s" % (where.encode(), part) for where, part in told
        )
        return {"Content-Type": 'multipart/byteranges; boundary="a(b)"'}, body + b"\r\n--a(b)--\r\n"

    def do_GET(self):
        does = self.server.does
        path = urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/")
        does.requests.append((path, self.headers.get("Range"), dict(self.headers)))
        while does.frozen.is_set():
            time.sleep(0.05)
        time.sleep(does.delay)
        file = does.folder / path
        if does.errors > 0:
            does.errors -= 1
            return self.refuse(503)
        if does.redirect:
            return self.refuse(302, Location=does.redirect + self.path)
        if does.token and self.headers.get("Authorization") != f"Bearer {does.token}":
            return self.refuse(401, WWW_Authenticate="Bearer")
        if does.s3 and not signed_for_s3(self, *does.s3):
            return self.refuse(403)
        if not file.is_file():
            return self.refuse(404)
        data = file.read_bytes()
        ranges = self.asked(len(data))
        if ranges == []:
            return self.refuse(416, Content_Range=f"bytes */{len(data)}")
        headers, body = self.parts(data, ranges) if ranges else ({}, data)
        if does.gzip:
            headers, body = {"Content-Encoding": "gzip"}, gzip.compress(body)
        self.send_response(206 if ranges else 200)
        for name, value in {**headers, "ETag": does.etag, "Last-Modified": does.modified}.items():
            if value:
                self.send_header(name, value)
        if does.length or ranges:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if does.random.random() < does.cut:
            body = body[: does.random.randrange(len(body))]
            self.close_connection = True
        try:
            self.wfile.write(body)
        except OSError:  # the other side has enough
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # connections that the other side gave up


@contextmanager
def web_server(folder, port=0, tls=None, **changes):
    """(URL, behaviour) of a server for the files of a folder. tls: an ssl.SSLContext."""
    server = Server(("127.0.0.1", port), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.does = Behaviour(folder, **changes)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}", server.does
    finally:
        server.does.frozen.clear()
        server.shutdown()
        server.server_close()
        thread.join()
