"""A quicker compiler for the kernels of the tests: the same one, which reads MLX's header once, and compiles once.

Every process of the tests keeps kernels of its own, since MLX does not write them atomically. What one has compiled the
others copy: the workers of xdist, and the ranks of a world, which all need the same kernels at the same moment.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path

HEADER = Path("mlx/backend/cpu/compiled_preamble.h")
FLAGS = ("-std=c++17", "-O3", "-Wall", "-fPIC", "-shared")  # MLX's own; with others the header is read as usual

SHIM = """#!/bin/sh
# Of MLX's command, FLAGS -shared -I INCLUDE SOURCE -o LIBRARY, the source alone tells what comes out.
[ "$5" = -shared ] || exec {compiler} "$@"
eval "source=\\${{$(($# - 2))}} library=\\${{$#}}"
kept={kernels}/$(cksum < "$source" | tr ' ' -)
exec 9> "$kept.lock"
flock 9 2> /dev/null  # where there is none, as on macOS, two may compile the same at the same time
if cmp -s "$source" "$kept.cpp"; then
    exec cp "$kept.so" "$library"
fi
{compiler} -I {include} "$@" || exit
if [ ! -e "$kept.cpp" ]; then
    cp "$library" "$kept.so.$$" && mv "$kept.so.$$" "$kept.so"
    cp "$source" "$kept.cpp.$$" && mv "$kept.cpp.$$" "$kept.cpp"
fi
"""


def include_folder() -> Path | None:
    """Where MLX keeps the header that every fused kernel of the CPU begins with."""
    found = importlib.util.find_spec("mlx")
    folders = [Path(place) / "include" for place in found.submodule_search_locations or ()] if found else []
    return next((folder for folder in folders if (folder / HEADER).exists()), None)


def quicken(folder: Path) -> None:
    """Put a g++ first on the path that finds the header already read; the code that it makes is the same.

    Four fifths of the time of a kernel go into that header.
    """
    compiler, include = shutil.which("g++"), include_folder()
    if compiler is None or include is None:
        return
    precompiled = folder / "include" / HEADER.parent / f"{HEADER.name}.gch"
    precompiled.parent.mkdir(parents=True)
    command = [compiler, "-x", "c++-header", *FLAGS, "-w", "-I", str(include), str(include / HEADER)]
    if subprocess.run([*command, "-o", str(precompiled)], check=False, capture_output=True).returncode:
        return
    kernels, shim = folder / "kernels", folder / "bin" / "g++"
    kernels.mkdir()
    shim.parent.mkdir()
    places = {"compiler": compiler, "include": str(folder / "include"), "kernels": str(kernels)}
    shim.write_text(SHIM.format(**{name: shlex.quote(place) for name, place in places.items()}))
    shim.chmod(0o755)
    os.environ["PATH"] = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
