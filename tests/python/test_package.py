"""The SDK as a package: its types, its generated stubs, its README."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from mas_agent import Message
from mas_agent._proto import runtime_pb2
from mas_agent.testing import FakeServer

from world import HERE, PATIENCE_S, ROOT, World

SDK = ROOT / "sdk" / "python"


def examples() -> dict[str, str]:
    """The README's whole files, by their names."""
    blocks = re.findall(r"```(?:python|yaml)\n# ([a-z_]+\.(?:py|yaml))\n(.*?)```", (SDK / "README.md").read_text(), re.DOTALL)
    return dict(blocks)


def test_types(tmp_path: Path) -> None:
    """Strict, for the package and for those who use it as its README does."""
    written = [str(HERE / "typed_program.py")]
    for name, text in examples().items():
        if name.endswith(".py") and name != "traced.py":
            (tmp_path / name).write_text(text)
            written.append(str(tmp_path / name))
    for words, folder in [
        (["--config-file", str(SDK / "pyproject.toml")], SDK),
        (["--strict", *written], tmp_path),
    ]:
        cache = ["--cache-dir", str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *cache, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_files_have_one_subject() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (SDK / "src").rglob("*.py") if "_pb2" not in path.name}
    assert not {str(path): lines for path, lines in lengths.items() if lines > 400}


def test_the_wheel_has_what_belongs_to_it(tmp_path: Path) -> None:
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(SDK)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        [metadata] = [name for name in names if name.endswith("/METADATA")]
        said = content.read(metadata).decode()
    assert "mas_agent/py.typed" in names and any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name]
    assert "Requires-Python: >=3.10" in said and "Classifier: Typing :: Typed" in said and "# mas-agent" in said


def test_generated_stubs_are_those_of_the_protocol(tmp_path: Path) -> None:
    """Otherwise: run sdk/python/generate."""
    from grpc_tools import protoc

    out = tmp_path / "descriptors"
    proto = "mas/runtime/v1/runtime.proto"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={out}", proto]) == 0
    [expected] = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    committed = descriptor_pb2.FileDescriptorProto()
    runtime_pb2.DESCRIPTOR.CopyToProto(committed)
    for file in (expected, committed):
        # Derived from the names, and in one of the two only.
        messages = [*file.message_type, *(nested for one in file.message_type for nested in one.nested_type)]
        for field in (field for message in messages for field in message.field):
            field.ClearField("json_name")
    assert committed == expected


def test_the_first_example_runs_as_it_is(tmp_path: Path) -> None:
    assert next(iter(examples())) == "hello.py"
    (tmp_path / "hello.py").write_text(examples()["hello.py"])
    done = subprocess.run(
        [sys.executable, "hello.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert (done.stdout, done.stderr) == ("asker asks: Why?\n", "")


def test_the_example_of_the_readme_answers() -> None:
    """As `mas run` starts it, asked by the script beside it."""
    files = examples()
    assert len(files["agent.py"].splitlines()) <= 45
    with World("agents: []\n") as world:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        for name in ("agent.py", "ask.py", "mas.yaml"):
            text = files[name].replace("127.0.0.1:50051", f"127.0.0.1:{port}").replace("[python3,", f"[{sys.executable},")
            (world.path / name).write_text(text.replace("url: managed", f"url: '{world.redis_url}'"))
        world.issue("asker", "assistant")
        running = world.run()
        asking = world.start([sys.executable, "ask.py"], folder=world.path)
        assert "'asked': 1" in asking.line("asked") and "'asked': 2" in asking.line("asked")
        assert asking.popen.wait(PATIENCE_S) == 0
        assert running.stop() == 0


def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    for name in ("agent.py", "test_agent.py"):
        (tmp_path / name).write_text(examples()[name])
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_agent.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


async def test_the_example_of_the_readme_counts_everything() -> None:
    """98 questions at once are 98; get_state and update_state alone lost most of them."""
    names: dict[str, Any] = {"__name__": "agent"}
    exec(examples()["agent.py"], names)
    async with FakeServer() as server:
        agent = server.attach("assistant", names["agent"])
        async with agent, server.agent("asker") as asker, server.agent("archive") as archive:
            archive.on_other(nothing)
            asked = [asker.request("assistant", "question", {"text": str(n)}, timeout=20) for n in range(98)]
            replies = await asyncio.gather(*asked)
            await server.idle()
    assert sorted(one.data["asked"] for one in replies) == list(range(1, 99))
    assert server.state("assistant")["asked"] == "98" and not server.dead_letters


async def nothing(message: Message) -> None: ...
