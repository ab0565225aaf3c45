"""The folders of src/clipzoo: imports run one way, and no folder outgrows the others."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "clipzoo"
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = sorted((ROOT / "stages").glob("*.py"))

# A folder (or a module at the top of the package) may import those of earlier layers.
LAYERS = (
    ("files", "paths"),
    ("yaml_files", "settings"),
    ("sections",),
    ("config", "recorded", "tensors"),
    ("runtime", "data", "models", "report", "given_files"),
    ("annotations", "frames", "clips"),
    ("methods",),
    ("train", "evaluate", "demo"),
    ("serve",),
    ("comparison",),
    ("commands", "stages"),
    ("__main__", "__init__"),
)
LAYER = {folder: layer for layer, folders in enumerate(LAYERS) for folder in folders}
USERS_OF_DEMO = {"demo", "stages/make_demo.py", "stages/prepare_clip.py"}
LARGEST_SHARE = 0.13
"""Of the lines of src/clipzoo, in one folder."""


def folder_of(path: Path) -> str:
    """`data` of src/clipzoo/data/index.py, `files` of src/clipzoo/files.py, `stages` of a stage."""
    if path.is_relative_to(PACKAGE):
        return path.relative_to(PACKAGE).with_suffix("").parts[0]
    return "stages"


def imports(text: str) -> Iterator[tuple[int, str]]:
    """(line, folder) of every import of clipzoo, wherever in the module it is."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "clipzoo":
                assert parts, f"line {node.lineno}: import the module, not the package"
                yield node.lineno, parts[0]


def test_imports_are_found_in_every_form():
    text = (
        "import clipzoo.data.index\n"
        "from clipzoo import files\n"
        "from clipzoo.models.clip import load_clip\n"
        "import torch, clipzoo.report.tables as tables\n"
        "def main():\n    from clipzoo.train import loop\n"
    )
    expected = [(1, "data"), (2, "files"), (3, "models"), (4, "report"), (6, "train")]
    assert sorted(imports(text)) == expected


def test_every_folder_has_a_layer():
    folders = {folder_of(path) for path in MODULES if path != PACKAGE / "__init__.py"}
    assert folders <= set(LAYER), f"no layer: {sorted(folders - set(LAYER))}"


@pytest.mark.parametrize("path", [*MODULES, *STAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path):
    importer = folder_of(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {importer} imports {folder}"
        for line, folder in imports(path.read_text(encoding="utf-8"))
        if folder != importer and LAYER[folder] >= LAYER[importer]
    ]
    assert not wrong, "\n".join(wrong)


def test_two_stages_alone_import_the_demo():
    users = set()
    for path in (*MODULES, *STAGES):
        if "demo" in {folder for _, folder in imports(path.read_text(encoding="utf-8"))}:
            importer = folder_of(path)
            users.add(f"stages/{path.name}" if importer == "stages" else importer)
    assert users == USERS_OF_DEMO


def test_no_folder_outgrows_the_others():
    lines: Counter[str] = Counter()
    for path in MODULES:
        lines[folder_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    largest, count = lines.most_common(1)[0]
    assert count <= LARGEST_SHARE * lines.total(), f"{largest}: {count} of {lines.total()} lines"
