#!/usr/bin/python3
"""A TCP proxy for loopback whose links can be slowed down, frozen and cut while they are in use.

Runs as a process of its own, so that a busy test does not slow it down. Reads one JSON command per line from standard
input and answers each with one line; ends with its input. Commands:

  {"do": "link", "name": "worker1.redis", "target": 6379}   -> {"port": N}: a listener on 127.0.0.1 for that port
  {"do": "set", "name": "worker1.redis", "delay": 0.05}     each piece of data waits so long, in both directions
  {"do": "set", "name": …, "frozen": true}                  nothing passes, connections stay (a router that drops)
  {"do": "set", "name": …, "cut": true}                     connections are reset, new ones too (a wire that is cut)
  {"do": "clear"}                                           every link as at the start

`Proxy` is the other end, for tests.
"""
import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading


class Link:
    def __init__(self, target):
        self.target = target
        self.server = None
        self.writers = set()
        self.clear()

    def clear(self):
        self.delay, self.frozen, self.cut = 0.0, False, False

    def set(self, delay=None, frozen=None, cut=None):
        self.delay = self.delay if delay is None else delay
        self.frozen = self.frozen if frozen is None else frozen
        self.cut = self.cut if cut is None else cut
        if self.cut:
            for writer in list(self.writers):
                reset(writer)

    async def open(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        if self.cut:
            reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset(writer)
            return
        pair = {writer, up_writer}
        for w in pair:
            w.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.writers |= pair
        try:
            await asyncio.gather(self.pump(reader, up_writer), self.pump(up_reader, writer))
        finally:
            self.writers -= pair
            for w in pair:
                w.close()

    async def pump(self, reader, writer):
        try:
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                while self.frozen:
                    await asyncio.sleep(0.05)
                writer.write(data)
                await writer.drain()
            while self.frozen:  # the end of a connection does not pass either
                await asyncio.sleep(0.05)
            writer.write_eof()
        except (OSError, RuntimeError):
            writer.close()


def reset(writer):
    """Ends a connection with RST, as a machine that is gone does."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()


async def serve():
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    links = {}
    while line := await commands.readline():
        command = json.loads(line)
        do, name = command.pop("do"), command.pop("name", None)
        answer = {}
        if do == "link":
            links[name] = Link(command["target"])
            answer["port"] = await links[name].open()
        elif do == "set":
            links[name].set(**command)
        else:
            for link in links.values():
                link.clear()
        print(json.dumps(answer), flush=True)


class Proxy:
    """Starts the process and talks to it; safe to use from several threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.popen = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, **command):
        with self.lock:
            self.popen.stdin.write(json.dumps(command) + "\n")
            self.popen.stdin.flush()
            return json.loads(self.popen.stdout.readline())

    def link(self, name, target):
        return self._ask(do="link", name=name, target=target)["port"]

    def set(self, name, **how):
        self._ask(do="set", name=name, **how)

    def clear(self):
        self._ask(do="clear")

    def stop(self):
        self.popen.stdin.close()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


if __name__ == "__main__":
    asyncio.run(serve())
