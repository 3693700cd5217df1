"""The endpoints as tools of an MCP client."""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from space.app import build_app, launch

mcp = pytest.importorskip("mcp", reason="no MCP here: pip install 'facestyle[mcp]'")
streamable_http = pytest.importorskip("mcp.client.streamable_http")


@pytest.fixture(scope="module")
def mcp_address(engine, quick):
    demo = build_app(engine, {"fast": quick})
    _, url, _ = launch(
        demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, mcp_server=True
    )
    yield f"{url}gradio_api/mcp/"
    demo.close()


def ask(address, function):
    """What ``function`` returns of a session with the server."""

    async def talk():
        async with (
            streamable_http.streamablehttp_client(address) as (reads, writes, _),
            mcp.ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            return await function(session)

    with ThreadPoolExecutor(1) as pool:  # a browser's loop may be running in this thread
        return pool.submit(asyncio.run, talk()).result()


def test_every_endpoint_is_a_tool_with_its_words(mcp_address):
    tools = ask(mcp_address, lambda session: session.list_tools()).tools
    named = {tool.name.split("_")[-1]: tool for tool in tools}
    assert set(named) == {"faces", "stylize", "variations", "reference"}
    assert "drawn anew" in named["stylize"].description
    assert {"photo", "style", "strength"} <= named["stylize"].inputSchema["properties"].keys()


def test_a_tool_gives_the_librarys_picture(mcp_address, astronaut, stylizers, tmp_path):
    astronaut.save(tmp_path / "me.png")
    data = base64.b64encode((tmp_path / "me.png").read_bytes()).decode()
    given = {"photo": f"data:image/png;base64,{data}", "style": "cartoon", "faces": "largest"}

    told = []

    async def tell(progress, total, message):
        told.append(message)

    async def call(session):
        tools = (await session.list_tools()).tools
        name = next(tool.name for tool in tools if tool.name.endswith("stylize"))
        return await session.call_tool(name, given, progress_callback=tell)

    answer = ask(mcp_address, call)
    assert not answer.isError, answer.content
    assert told
    (picture, *_) = [part for part in answer.content if part.type == "image"]
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as image:
        shown = image.convert("RGB")
    wanted = stylizers["cartoon"](tmp_path / "me.png", faces="largest").image
    assert shown.size == wanted.size
    difference = sum(
        abs(a - b) for a, b in zip(shown.tobytes(), wanted.tobytes(), strict=True)
    ) / len(wanted.tobytes())
    assert difference < 4  # levels; Gradio sends pictures to MCP clients in its own encoding
