"""Generates the Python of the contract: `python -m protos.compile [DIRECTORY]`; a test compares it with the tree."""

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
FIELDS = HERE / "v1" / "fields.txt"  # grows only: the test compares it with the contract as it is


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


def field_lines() -> list[str]:
    """Every field and enum value of the contract, one line each: what may never change or go."""
    from google.protobuf.descriptor import FieldDescriptor

    types = {number: name[5:].lower() for name, number in vars(FieldDescriptor).items() if name.startswith("TYPE_")}
    lines = []
    for path in sorted((HERE / "v1").glob("*.proto")):
        file = import_module(f"protos.v1.{path.stem}_pb2").DESCRIPTOR
        for message in file.message_types_by_name.values():
            for field in message.fields:
                kind = (field.message_type or field.enum_type or field).name if field.type in (11, 14) else ""
                many = "repeated " if field.is_repeated else ""
                lines.append(f"{message.name}.{field.name} = {field.number} {many}{kind or types[field.type]}")
        for enum in file.enum_types_by_name.values():
            lines += [f"{enum.name}.{value.name} = {value.number}" for value in enum.values]
        for service in file.services_by_name.values():
            lines += [
                f"{service.name}.{each.name}({each.input_type.name}) {each.output_type.name}"
                for each in service.methods
            ]
    return sorted(lines)


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
    grown = sorted({*FIELDS.read_text().splitlines(), *field_lines()}) if FIELDS.exists() else field_lines()
    FIELDS.write_text("\n".join(grown) + "\n")
