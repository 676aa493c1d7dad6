"""The design's promises about the code itself: who imports whom, and what every test says."""

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "bilbo"


def table() -> dict[str, set[str]]:
    """`{module: what it may import}` as docs/design.md has it."""
    text = (PROJECT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    allowed: dict[str, set[str]] = {}
    for name, may in rows:
        if may == "all above":
            allowed[name] = set(allowed)
        else:
            allowed[name] = set() if may == "nothing" else set(may.split(", "))
    return allowed


def imported(path: Path) -> set[str]:
    """The modules of bilbo's top level that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bilbo"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bilbo.")}
    return found - {"__version__"}


def test_imports_follow_the_designs_table() -> None:
    """No module imports what the design's table does not allow it."""
    allowed = table()
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if top.startswith("__"):
            continue
        assert top in allowed, f"{top} is not in the design's table"
        wrong += [
            f"{path.relative_to(PROJECT)} imports {name}"
            for name in imported(path) - {top}
            if name not in allowed[top]
        ]
    assert not wrong, "\n".join(wrong)


def test_the_table_names_no_module_that_is_gone() -> None:
    """Every row of the design's table is a module that exists."""
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert table().keys() <= there


def test_every_test_says_what_it_proves() -> None:
    """Every test function has a docstring."""
    silent = [
        f"{path.name}: {node.name}"
        for path in sorted((PROJECT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent, "\n".join(silent)


def test_every_file_is_short_enough_to_be_read() -> None:
    """No module has outgrown a few pages, and no function one screen."""
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 450:
            long.append(f"{path.relative_to(PROJECT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 50:
                    long.append(f"{path.relative_to(PROJECT)}:{node.name}: {lines} lines")
    assert not long, "\n".join(long)


VERBS = {
    "attach", "build_image", "check", "create", "destroy", "drift", "export", "extend",
    "host_access", "plan", "restart", "scale", "state_bucket", "sweep",
}  # fmt: skip


def test_a_verb_imports_no_other() -> None:
    """In `cluster` and among the commands: what two of them share has a place of its own."""
    wrong = []
    for package, verbs in (("cluster", VERBS), ("cli/commands", None)):
        for path in sorted((PACKAGE / package).glob("*.py")):
            siblings = {
                node.module.rpartition(".")[2]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.startswith(f"bilbo.{package.replace('/', '.')}.")
            }
            known = verbs if verbs is not None else siblings
            if path.stem in known or verbs is None:
                wrong += [f"{package}/{path.name} imports {name}" for name in siblings & known]
    assert not wrong, "\n".join(wrong)
    assert {path.stem for path in (PACKAGE / "cluster").glob("*.py")} >= VERBS


def test_one_file_name_one_thing() -> None:
    """No two modules share a file name, no two public classes a name."""
    stems: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if not path.stem.startswith("__"):
            stems.setdefault(path.stem, []).append(place)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(place)
    assert not {name: where for name, where in (stems | classes).items() if len(where) > 1}
