"""The house rules that a program can check: what may include what, unique file names, options in the documentation."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent

# The arrows of the design: a module may include its own headers, the public ones, and those of these modules.
MAY_INCLUDE = {
    "base": set(),
    "column": {"base"},
    "comm": {"base"},
    "access": {"base"},
    "root": {"base", "access", "column"},
    "export": {"base", "column", "access", "root", "dataset"},
    "table": {"base", "column", "export"},
    "recipe": {"base", "column"},
    "dataset": {"base", "column", "access"},
    "nn": {"base", "comm", "column", "dataset"},
    "pipeline": {"base", "column", "access", "root", "recipe", "dataset", "comm", "nn"},
}
# Public headers that a module may not see (columns are the only meeting point of root and what follows it).
MAY_NOT_SEE = {
    "base": {"comm", "column", "access", "root", "recipe", "dataset", "nn", "pipeline"},
    "comm": {"column", "access", "root", "recipe", "dataset", "nn", "pipeline"},
    "column": {"comm", "access", "root", "recipe", "dataset", "nn", "pipeline"},
    "access": {"comm", "column", "root", "recipe", "dataset", "nn", "pipeline"},
    "root": {"comm", "recipe", "dataset", "nn", "pipeline"},
    "export": {"comm", "recipe", "nn", "pipeline"},
    "table": {"comm", "recipe", "dataset", "nn", "pipeline"},
    "recipe": {"comm", "access", "root", "dataset", "nn", "pipeline"},
    "dataset": {"comm", "root", "recipe", "nn", "pipeline"},
    "nn": {"access", "root", "recipe", "pipeline"},
    "pipeline": set(),
}


def sources(folder):
    return [path for path in (SOURCE / folder).rglob("*") if path.suffix in (".c", ".h", ".cpp", ".cu")]


def includes(path):
    return re.findall(r'^\s*#\s*include\s+[<"]([^">]+)[">]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", sorted(MAY_INCLUDE))
def test_modules_include_only_what_the_design_allows(module):
    for path in sources(f"src/{module}"):
        for name in includes(path):
            other = re.match(r"\.\./(\w+)/", name)
            if other:
                assert other[1] in MAY_INCLUDE[module], f"{path.relative_to(SOURCE)} includes {name}"
            public = re.match(r"sapwood/(\w+)\.h", name)
            if public:
                assert public[1] not in MAY_NOT_SEE[module], f"{path.relative_to(SOURCE)} includes {name}"


@pytest.mark.parametrize("folder", ["cli", "python", "spark", "examples"])
def test_what_stands_on_the_library_uses_public_headers_only(folder):
    for path in sources(folder):
        for name in includes(path):
            assert "src/" not in name and "_internal" not in name, f"{path.relative_to(SOURCE)} includes {name}"


def test_every_module_is_in_the_table():
    assert {path.relative_to(SOURCE / "src").parts[0] for path in sources("src")} == set(MAY_INCLUDE)


def tracked():
    listing = subprocess.run(["git", "ls-files"], cwd=SOURCE, capture_output=True, text=True)
    if listing.returncode != 0 or not listing.stdout:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listing.stdout.splitlines()]


def test_file_names_are_unique():
    # names that tools or formats prescribe, one a folder
    prescribed = {"CMakeLists.txt", "__init__.py", "run", "README.md"}
    names = Counter(path.name for path in tracked() if path.name not in prescribed)
    assert [name for name, count in names.items() if count > 1] == []


def test_public_headers_compile_alone_as_c_and_cplusplus(tmp_path):
    for header in sorted((SOURCE / "include/sapwood").glob("*.h")):
        for language, standard in (("c", "c17"), ("c++", "c++17")):
            source = tmp_path / "alone.txt"
            source.write_text(f"#include <sapwood/{header.name}>\n")
            command = ["cc", "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
            result = subprocess.run([*command, f"-I{SOURCE}/include", str(source)], capture_output=True, text=True)
            assert result.returncode == 0, f"{header.name} as {language}: {result.stderr}"


def test_sources_are_formatted():
    files = [str(SOURCE / p) for p in tracked() if p.suffix in (".c", ".h", ".cpp", ".cu") and (SOURCE / p).exists()]
    result = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:2000]


def test_released_libraries_need_no_symbol_newer_than_glibc_2_34():
    import os

    libraries = sorted(Path(os.environ["SAPWOOD_BUILD"]).glob("lib/libsapwood*.so"))
    assert libraries
    for library in libraries:
        symbols = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
        needed = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", symbols)}
        assert needed and max(needed) <= (2, 34), f"{library.name} needs glibc {max(needed)}"
