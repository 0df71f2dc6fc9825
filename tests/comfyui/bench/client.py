"""A client of ComfyUI: queues graphs over HTTP and listens to the websocket, as the editor does."""

from __future__ import annotations

import asyncio
import html
import json
import struct
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4


@dataclass
class Event:
    """A message of the websocket."""

    kind: str
    data: Any
    at: float


@dataclass
class Run:
    """What became of a queued graph."""

    prompt_id: str
    events: list[Event] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, kind: str) -> list[Event]:
        """The events of a kind, in order."""
        return [event for event in self.events if event.kind == kind]

    @property
    def ok(self) -> bool:
        """Whether it went well."""
        return self.history.get("status", {}).get("status_str") == "success"

    def error(self) -> str:
        """The message of the node that failed; empty if none did."""
        return "".join(event.data["exception_message"] for event in self.of("execution_error"))

    def cached(self) -> set[str]:
        """The nodes whose results were there already."""
        return {node for event in self.of("execution_cached") for node in event.data["nodes"]}

    def executed(self) -> list[str]:
        """The nodes that ran, in order."""
        return [event.data["node"] for event in self.of("executing") if event.data["node"]]

    def texts(self, node: str) -> list[str]:
        """The lines of text that the node showed."""
        return [event.data["text"] for event in self.of("text") if event.data["node"] == node]

    def ui(self, node: str, key: str = "text") -> list[Any]:
        """What the node shows at the end."""
        return self.history.get("outputs", {}).get(node, {}).get(key, [])


class Refused(RuntimeError):
    """ComfyUI did not take the graph; `answer` says why."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(json.dumps(answer)[:2000])
        self.answer = answer


class Client:
    """One browser tab."""

    def __init__(self, address: str) -> None:
        self.address, self.id = address, uuid.uuid4().hex
        self.events: list[Event] = []
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Client:
        self.http = aiohttp.ClientSession(f"http://{self.address}")
        self.socket = await self.http.ws_connect(f"/ws?clientId={self.id}", max_msg_size=0)
        await self.socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._listener.cancel()
        await self.socket.close()
        await self.http.close()

    async def _listen(self) -> None:
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                content = json.loads(message.data)
                event = Event(content["type"], content["data"], time.monotonic())
            else:
                event = _binary(message.data)
            async with self._news:
                self.events.append(event)
                self._news.notify_all()

    async def get(self, path: str) -> Any:
        """JSON from the server."""
        async with self.http.get(path) as answer:
            return await answer.json()

    async def post(self, path: str, content: Any = None) -> Any:
        """Sends JSON; the answer as JSON, or None."""
        async with self.http.post(path, json=content if content is not None else {}) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(json.loads(text))
            return json.loads(text) if text else None

    async def queue(self, graph: dict[str, Any], **extra: Any) -> str:
        """Queues a graph; its id."""
        answer = await self.post("/prompt", {"prompt": graph, "client_id": self.id, **extra})
        return answer["prompt_id"]

    async def interrupt(self) -> None:
        """Presses the button."""
        await self.post("/interrupt")

    async def wait_for(self, what: Any, since: int = 0, seconds: float = 300) -> Event:
        """The first event for which `what` holds, of those from number `since` on."""
        place = since
        async with asyncio.timeout(seconds):
            while True:
                async with self._news:
                    while len(self.events) <= place:
                        await self._news.wait()
                while place < len(self.events):
                    event = self.events[place]
                    place += 1
                    if what(event):
                        return event

    async def end(self, prompt_id: str, since: int = 0, seconds: float = 600) -> Run:
        """Waits until a queued graph has ended."""
        started = time.monotonic()

        def over(event: Event) -> bool:
            kinds = ("execution_success", "execution_error", "execution_interrupted")
            return event.kind in kinds and event.data.get("prompt_id") == prompt_id

        await self.wait_for(over, since, seconds)
        run = Run(prompt_id)
        for _ in range(100):
            run.history = (await self.get(f"/history/{prompt_id}")).get(prompt_id, {})
            if run.history:
                break
            await asyncio.sleep(0.05)
        run.events = self.events[since:]
        run.seconds = time.monotonic() - started
        return run

    async def run(self, graph: dict[str, Any], seconds: float = 600, **extra: Any) -> Run:
        """Queues a graph and waits for its end."""
        since = len(self.events)
        return await self.end(await self.queue(graph, **extra), since, seconds)


def _binary(data: bytes) -> Event:
    kind = struct.unpack(">I", data[:4])[0]
    now = time.monotonic()
    if kind == TEXT:
        length = struct.unpack(">I", data[4:8])[0]
        return Event("text", {"node": data[8 : 8 + length].decode(), "text": html.unescape(data[8 + length :].decode())}, now)
    if kind == PREVIEW_WITH_METADATA:
        length = struct.unpack(">I", data[4:8])[0]
        about = json.loads(data[8 : 8 + length])
        return Event("preview", {"node": about["node_id"], "type": about.get("image_type"), "bytes": data[8 + length :]}, now)
    return Event(f"binary {kind}", data, now)
