"""Stand-ins for Slack and a mail server that keep what Alertmanager tells them."""
import base64
import http.server
import json
import re
import socketserver
import threading


class Slack(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keep("slack", body["attachments"][0]["title"], body)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


class Mail(socketserver.StreamRequestHandler):
    """SMTP with AUTH LOGIN; a message is taken from nobody who has not signed in."""

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def word(self, question):
        self.say("334 " + base64.b64encode(question).decode())
        return base64.b64decode(self.rfile.readline().strip()).decode()

    def handle(self):
        signed_in = False
        self.say("220 test")
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                self.say("250-test")
                self.say("250 AUTH LOGIN")
            elif verb == "AUTH":
                signed_in = (self.word(b"Username:"), self.word(b"Password:")) == self.server.login
                self.say("235 ok" if signed_in else "535 no")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (part := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(part.decode(errors="replace"))
                text = "".join(lines)
                subject = re.search(r"^Subject: (.*?)\r?$", text, re.M)[1]
                self.server.keep("mail", subject, text)
                self.say("250 kept")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok" if signed_in or verb not in ("MAIL", "RCPT") else "530 sign in first")


class HttpServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class MailServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, allow_reuse_address = True, True


class Receivers:
    """Both, on free ports of ADDRESS. `seen` grows: (way, title, whole message)."""

    def __init__(self, address, login):
        self.seen = []
        self.slack, self.mail = HttpServer((address, 0), Slack), MailServer((address, 0), Mail)
        self.mail.login = login
        for server in (self.slack, self.mail):
            server.keep = lambda way, title, message: self.seen.append((way, title, message))
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def has(self, way, status, alert, after=0):
        """Was a message of that kind kept after the first `after` ones?"""
        wanted = re.compile(rf"{status}\b.*\b{alert}\b")
        return any(w == way and wanted.search(title) for w, title, _ in self.seen[after:])

    def close(self):
        for server in (self.slack, self.mail):
            server.shutdown()
            server.server_close()
