import asyncio
import socket
import stat
import threading

import orjson
import pytest

from agents.core.errors import TradingError
from daemon import control
from daemon.errors import NotRunning, TimedOut


def refuse(_):
    raise TradingError("not now")


COMMANDS = {"status": lambda request: {"equity": 1.5, "asked": dict(request)}, "refuse": refuse}


async def ask(folder, command, **fields):
    return await asyncio.to_thread(control.ask, folder, command, **fields)


async def raw(folder, sent):
    reader, writer = await asyncio.open_unix_connection(str(folder / control.SOCKET))
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_an_answer_comes_back(tmp_path):
    async with control.serve(tmp_path, COMMANDS):
        assert await ask(tmp_path, "status", reason="x") == {"equity": 1.5, "asked": {"reason": "x"}}


async def test_a_refusal_is_an_error_of_ours(tmp_path):
    async with control.serve(tmp_path, COMMANDS):
        with pytest.raises(TradingError, match="not now"):
            await ask(tmp_path, "refuse")
        with pytest.raises(TradingError, match=r"no command 'fly'; there are refuse, status"):
            await ask(tmp_path, "fly")


@pytest.mark.parametrize("sent", [b"hello\n", b"[]\n", b"{}\n", b'{"command": 7}\n', b"\n"])
async def test_nonsense_is_answered_with_a_sentence(tmp_path, sent):
    async with control.serve(tmp_path, COMMANDS):
        answer = orjson.loads(await raw(tmp_path, sent))
        assert answer["ok"] is False
        assert answer["error"].startswith("a request is")


async def test_an_endless_request_is_hung_up_on(tmp_path):
    async with control.serve(tmp_path, COMMANDS):
        try:
            answer = await raw(tmp_path, b"x" * (4 * control.LONGEST_REQUEST))
        except ConnectionError:  # the kernel's way to say that nobody reads on
            answer = b""
        assert answer == b""
        assert await ask(tmp_path, "status")


async def test_a_silent_client_is_hung_up_on(tmp_path):
    async with control.serve(tmp_path, COMMANDS, patience_s=0.05):
        assert await raw(tmp_path, b"") == b""


async def test_too_many_clients_are_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MOST_CLIENTS", 1)
    async with control.serve(tmp_path, COMMANDS):
        _, first = await asyncio.open_unix_connection(str(tmp_path / control.SOCKET))
        answer = orjson.loads(await raw(tmp_path, b'{"command": "status"}\n'))
        assert "too many" in answer["error"]
        first.close()
        await first.wait_closed()


async def test_only_this_user_may_connect(tmp_path):
    async with control.serve(tmp_path, COMMANDS):
        mode = (tmp_path / control.SOCKET).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


async def test_a_dead_daemons_socket_gives_way_and_ours_is_taken_along(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / control.SOCKET))
    left.close()
    with pytest.raises(NotRunning, match="no daemon runs"):
        await ask(tmp_path, "status")
    async with control.serve(tmp_path, COMMANDS):
        assert await ask(tmp_path, "status")
    assert not (tmp_path / control.SOCKET).exists()


async def test_a_folder_deeper_than_the_kernels_limit(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    async with control.serve(deep, COMMANDS):
        assert await ask(deep, "status")


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_nobody_there(tmp_path, missing):
    with pytest.raises(NotRunning, match="quartet trade"):
        control.ask(tmp_path / missing, "status")


def test_a_daemon_that_does_not_answer(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / control.SOCKET))
        server.listen(1)
        with pytest.raises(TimedOut, match="did not answer"):
            control.ask(tmp_path, "status", patience_s=0.05)


def test_a_daemon_that_dies_while_asked(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / control.SOCKET))
        server.listen(1)

        def die():
            server.accept()[0].close()

        killer = threading.Thread(target=die)
        killer.start()
        with pytest.raises(NotRunning):
            control.ask(tmp_path, "status")
        killer.join()
