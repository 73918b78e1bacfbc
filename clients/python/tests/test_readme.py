"""What the README says, done as it stands: each block, in its order, in one shell."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess

from world import PROJECT, binary

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NAMED = re.compile(r"# (\w+\.py)\n")


def script(text: str) -> str:
    """The blocks as one script; a block of Python is saved by its name first."""
    lines = ["set -Eeuo pipefail"]
    for language, body in BLOCK.findall(text):
        if language == "python":
            name = NAMED.match(body)
            assert name, f"a block of Python begins with its file's name: {body[:60]}"
            lines.append(f"printf %s {shlex.quote(body)} >{name[1]}")
        else:
            assert language == "bash", f"a block that no test runs: {language or 'without a language'}"
            lines.append(f"printf '%s\\n' {shlex.quote(body)} | sed 's/^/> /'\n{body}")
    return "\n".join(lines)


def test_every_block_runs_as_it_stands(tmp_path):
    (tmp_path / "clients").symlink_to(PROJECT / "clients")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mayfly").symlink_to(pathlib.Path(binary()).resolve())
    (tmp_path / "readme.sh").write_text(script(README.read_text()))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAYFLY_", "SPIFFE_"))}
    env |= {"PATH": f"{tmp_path / 'bin'}:{env['PATH']}", "HOME": str(tmp_path)}
    env |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    if wheels := os.environ.get("MAYFLY_WHEELS"):
        # What pip would fetch lies there: nothing leaves this machine.
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels}
    with open(tmp_path / "said", "wb") as out:
        child = subprocess.Popen(["bash", "readme.sh"], cwd=tmp_path, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        child.wait(150)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            # The group that the script made: its service, where the script ended too soon.
            os.killpg(child.pid, signal.SIGTERM)
        child.wait(10)
        subprocess.run([binary(), "dev", "down", "--dir", str(tmp_path / "world")], env=env, capture_output=True, check=False)
    said = (tmp_path / "said").read_text()
    assert child.returncode == 0, said[-4000:]
    assert "[secret]" in said and "200 {'found': 'nothing like moths'" in said and "DENIED_BY_POLICY" in said, said[-4000:]
    assert "eyJ" not in said, "no token is shown"
