"""Generates mayfly.v1 from the protos while the package is built, so that there is one contract and no copy of it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What the client calls; what these import comes with them.
SERVICES = ["token_service", "task_service", "revocation_service", "key_service", "audit_service"]


class Contract(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        # In a source distribution the protos lie beside this file, in the repository above it.
        protos = next(p for p in (root / "proto", root.parent.parent / "proto") if p.is_dir())
        self._made = Path(tempfile.mkdtemp(prefix="mayfly-proto-"))
        generate(protos, self._made)
        folder = self._made / "mayfly" / "v1"
        (folder / "__init__.py").write_text('"""mayfly.v1, generated from the protos."""\n')
        editable = version == "editable"
        key = "force_include_editable" if editable else "force_include"
        build_data.setdefault(key, {})
        for file in sorted(folder.iterdir()):
            build_data[key][str(file)] = f"mayfly/v1/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if made := getattr(self, "_made", None):
            shutil.rmtree(made, ignore_errors=True)


def generate(protos: Path, out: Path) -> None:
    """Runs protoc over the services and all that they import."""
    import grpc_tools
    from grpc_tools import protoc

    google = Path(grpc_tools.__file__).parent / "_proto"
    wanted, todo = set(), [f"mayfly/v1/{name}.proto" for name in SERVICES]
    while todo:
        name = todo.pop()
        if name in wanted:
            continue
        wanted.add(name)
        lines = (protos / name).read_text().splitlines()
        todo += [line.split('"')[1] for line in lines if line.startswith('import "mayfly/')]
    args = ["protoc", f"-I{protos}", f"-I{google}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*args, *sorted(wanted)]) != 0:
        raise RuntimeError("protoc failed")
    for file in (out / "mayfly" / "v1").glob("*_pb2_grpc.py"):
        # One without a service of its own holds nothing.
        if file.name.removesuffix("_pb2_grpc.py") not in SERVICES:
            file.unlink()
