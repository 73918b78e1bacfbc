"""What a type checker says of programs that use the client."""

from __future__ import annotations

import subprocess
import sys

from world import PROJECT

GOOD = """
from mayfly import Mayfly, Task

async def work(mayfly: Mayfly, task: Task) -> None:
    async with task.credential("echo", scope=["echo:read"], tool="t", arguments={"a": 1}, ttl=3, wait_for_approval=1) as cred:
        cred.used(200)
    async with task.auth("echo", scope="echo:read", ttl=3), mayfly.auth("echo", scope="echo:read", purpose="p"):
        pass
    required: str = mayfly.task_of(None, require_task=True)
    perhaps: str | None = mayfly.task_of(None)
"""
BAD = {
    'task.credential("echo", scope="a", argumnets={})': 'argument "argumnets"',
    'task.credential("echo", scope="a", ttl="3")': '"ttl"',
    'task.credential("echo")': '"scope"',
    'task.credential("echo", scope="a", kind="jwtt")': '"kind"',
    'task.auth("echo", scope="a", tools="t")': 'argument "tools"',
    'mayfly.auth("echo", scope="a", purpos="t")': 'argument "purpos"',
    'mayfly.credential("echo", scope="a", purpos="t")': 'argument "purpos"',
}


def check(tmp_path, source):
    (tmp_path / "program.py").write_text(source)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(PROJECT / "clients/python/pyproject.toml")]
    command += ["--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    return done.stdout + done.stderr


def test_a_misspelt_argument_does_not_type_check(tmp_path):
    assert "Success" in check(tmp_path, GOOD)
    lines = [f"    {line}" for line in BAD]
    said = check(
        tmp_path, "from mayfly import Mayfly, Task\n\ndef work(mayfly: Mayfly, task: Task) -> None:\n" + "\n".join(lines)
    )
    for number, (line, word) in enumerate(BAD.items(), 4):
        assert any(said_of.startswith(f"program.py:{number}: error") and word in said_of for said_of in said.splitlines()), (
            line,
            said,
        )
