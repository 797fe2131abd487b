"""Generates the Python of the contract: `python -m protos.compile [DIRECTORY]`; a test compares it with the tree."""

import sys
from pathlib import Path

HERE = Path(__file__).parent


def compile_into(directory: Path) -> None:
    """Writes the generated modules and their type stubs below `directory`, which stands for the repository's root.

    Raises:
        RuntimeError: the compiler refused a file; its own message is on standard error.
    """
    from grpc_tools import protoc

    sources = sorted(f"protos/v1/{each.name}" for each in (HERE / "v1").glob("*.proto"))
    outputs = [f"--{kind}_out={directory}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    beside = Path(sys.executable).parent  # the stub plugins stand beside this Python, on the PATH or not
    plugins = [f"--plugin={name}={beside / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    code = protoc.main(["protoc", f"-I{HERE.parent}", *plugins, *outputs, *sources])
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
