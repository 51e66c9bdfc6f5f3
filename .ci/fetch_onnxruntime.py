#!/usr/bin/env python3
"""Puts the ONNX Runtime library of a release into a directory: fetch_onnxruntime.py VERSION DIRECTORY

The library is taken out of the package that pip downloads for this machine; nothing is installed. A library of that
version that is there already is kept, others are removed.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def is_library(name, version):
    # libonnxruntime.so.1.32.0, libonnxruntime.1.32.0.dylib, onnxruntime.dll
    return name.startswith("libonnxruntime.") and version in name or name == "onnxruntime.dll"


def main():
    version, directory = sys.argv[1], Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    if any(is_library(file.name, version) for file in directory.iterdir()):
        return
    with tempfile.TemporaryDirectory() as temporary:
        download = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        subprocess.run(
            [sys.executable, "-m", *download, "--dest", temporary, f"onnxruntime=={version}"], check=True
        )
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            members = [member for member in package.namelist() if is_library(Path(member).name, version)]
            if not members:
                sys.exit(f"{wheel.name} holds no ONNX Runtime library")
            for old in directory.glob("*onnxruntime*"):
                old.unlink()
            for member in members:
                target = directory / Path(member).name
                # Renamed into place: a half-written library would be taken for the real one.
                partial = target.with_name(target.name + ".partial")
                with package.open(member) as source, open(partial, "wb") as copy:
                    shutil.copyfileobj(source, copy)
                partial.rename(target)
                print(target)


if __name__ == "__main__":
    main()
