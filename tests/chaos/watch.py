"""People who only look: each follows a project over a WebSocket, at whichever gateway lets them in, and in the end must
have learned how every job ended, however many connections, gateways and events were lost in between (I7)."""
import threading
import time
import types

from api import WebSocket
from load import Door

FRESH = 45   # s; a snapshot holds what finished in the last 60 s


class Watcher(threading.Thread):
    def __init__(self, stack, person, turn=0):
        super().__init__(daemon=True)
        self.stack, self.person, self.turn = stack, person, turn
        self.jobs = {}            # job -> (seq, state)
        self.connections = self.messages = self.backwards = 0
        self.over = threading.Event()
        self.away_since = time.monotonic()
        self.gaps = []            # s without a connection

    def note(self, job, seq, state):
        if seq > self.jobs.get(job, (0, ""))[0]:
            self.jobs[job] = (seq, state)

    def take(self, message):
        self.messages += 1
        if message["type"] == "snapshot":
            for job in message["jobs"]:
                self.note(job["id"], job["seq"], job["state"])
        elif message["type"] == "job":
            self.note(message["jobId"], message["seq"], message["state"])

    def follow(self, door):
        who = types.SimpleNamespace(stack=Door(self.stack, door.https_port), context=self.person.context, cookies={})
        ws = WebSocket(who, token=self.person.token, timeout=3)
        try:
            if ws.status != 101:
                return
            ws.send({"type": "subscribe", "projectId": self.person.home["id"]})
            for message in ws.until(lambda m: m["type"] == "snapshot", timeout=5):
                self.take(message)   # changes may overtake the snapshot, which was read before them
            self.connections += 1
            self.gaps.append(time.monotonic() - self.away_since)
            asked = answered = time.monotonic()
            while not self.over.is_set() and time.monotonic() - answered < 6:
                if time.monotonic() - asked > 2:   # a gateway that is frozen says nothing
                    asked = time.monotonic()
                    ws.send({"type": "ping", "t": 1})
                try:
                    message = ws.receive(0.5)
                except TimeoutError:
                    continue
                if message is None:
                    return
                answered = time.monotonic()
                self.take(message)
        finally:
            self.away_since = time.monotonic()
            ws.close()

    def run(self):
        while not self.over.is_set():
            self.turn += 1
            try:
                self.follow(self.stack.gateways[self.turn % len(self.stack.gateways)])
            except (OSError, EOFError, AssertionError, ValueError):
                pass
            time.sleep(0.1)

    def ignorance(self):
        """Sentences about jobs of which it does not know how they ended."""
        rows = self.stack.sql("SELECT id::text, seq, state, finished_at > now() - make_interval(secs => %s) FROM jobs "
                              "WHERE project_id = %s", FRESH, self.person.home["id"])
        longest = max(self.gaps, default=0)
        wrong = []
        for job, seq, state, fresh in rows:
            known = self.jobs.get(job)
            if (known is None or known[1] != state) and (fresh or longest < FRESH):
                wrong.append(f"{job} is {state} ({seq}), the watcher holds {known}")
        return wrong
