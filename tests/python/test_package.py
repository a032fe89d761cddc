"""The SDK as a package: its types, its generated stubs, its README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from mas_agent._proto import runtime_pb2

from world import HERE, ROOT, World

SDK = ROOT / "sdk" / "python"


def test_types(tmp_path: Path) -> None:
    """Strict, for the package and for those who use it as its README does."""
    example = tmp_path / "example.py"
    example.write_text(readme_example())
    for words, folder in [
        (["--config-file", str(SDK / "pyproject.toml")], SDK),
        (["--strict", str(example)], tmp_path),
    ]:
        cache = ["--cache-dir", str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *cache, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


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


def readme_example() -> str:
    [example] = re.findall(r"```python\n(# agent\.py\n.*?)```", (SDK / "README.md").read_text(), re.DOTALL)
    return str(example)


def test_the_example_of_the_readme_answers() -> None:
    """As `mas run` starts it, asked by the agent beside it."""
    assert len(readme_example().splitlines()) <= 40
    agents = """
permissions:
  - {type: allow_bidirectional, agents: [asker, assistant]}
agents:
  - agent_id: assistant
    command: [PYTHON, agent.py]
    tls_cert_path: certs/agents/assistant.pem
    tls_key_path: certs/agents/assistant.key
  - agent_id: asker
    command: [PYTHON, ASKER]
    restart: never
    tls_cert_path: certs/agents/asker.pem
    tls_key_path: certs/agents/asker.key
"""
    agents = agents.replace("PYTHON", sys.executable).replace("ASKER", str(HERE / "asking_agent.py"))
    with World(agents) as world:
        world.issue("asker", "assistant")
        (world.path / "agent.py").write_text(readme_example())
        running = world.run()
        assert "asker/i0 | answer:" in running.line("answer:")
        assert running.stop() == 0

