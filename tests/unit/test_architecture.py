"""Who may import whom, read from the source of every file: the layout of the root is the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = {"broker", "edge_client", "aggregator", "mesh_bridge", "ui", "demo", "bench", "simulate"}
JOINS = {("simulate", "aggregator"), ("simulate", "edge_client")}  # in one process, for that is what it is
PACKAGES = sorted(p.name for p in ROOT.iterdir() if p.name in {*PROCESSES, "floe"} and (p / "__init__.py").exists())
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TRAINER = {
    f"edge_client/{name}.py" for name in ("dpsgd", "evaluate", "models", "optimise", "privacy", "tensors", "trainer")
}


@dataclass(frozen=True)
class Import:
    """One imported module; `lazy` inside a function, `typing` under TYPE_CHECKING."""

    file: str
    module: str
    lazy: bool
    typing: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def _imports(node: ast.AST, file: str, *, lazy: bool = False, typing: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(file, alias.name, lazy, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{file}: a relative import hides who is imported"
            yield from (Import(file, f"{child.module}.{alias.name}", lazy, typing) for alias in child.names)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, file, lazy=lazy or inside, typing=typing or checking)


def _all() -> list[Import]:
    return [
        found
        for path in FILES
        for found in _imports(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix())
    ]


IMPORTS = _all()


def _who(module: str) -> list[Import]:
    return [found for found in IMPORTS if found.top == module]


def test_the_reader_of_imports_finds_lazy_and_typing_ones() -> None:
    source = "import a\nif TYPE_CHECKING:\n    import b.c\ndef f():\n    from d import e\n"
    found = [(i.module, i.lazy, i.typing) for i in _imports(ast.parse(source), "x.py")]
    assert found == [("a", False, False), ("b.c", False, True), ("d.e", True, False)]


def test_every_package_of_the_project_is_looked_at() -> None:
    assert {"aggregator", "bench", "broker", "demo", "edge_client", "floe"} <= set(PACKAGES)
    assert len(FILES) > 50


def test_processes_never_import_each_other() -> None:
    wrong = [i for i in IMPORTS if i.top in PROCESSES and i.file.split("/")[0] in PROCESSES - {i.top}]
    assert [i for i in wrong if (i.file.split("/")[0], i.top) not in JOINS] == []


def test_what_is_shared_imports_no_process() -> None:
    assert [i for i in IMPORTS if i.top in PROCESSES and i.file.startswith("floe/")] == []


def test_only_the_command_line_names_modules_of_processes_and_as_text() -> None:
    dynamic = [
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if path.is_relative_to(ROOT / "floe") and "import_module" in path.read_text(encoding="utf-8")
    ]
    assert dynamic == ["floe/cli.py"]


def test_only_the_session_imports_paho_and_two_files_of_the_benchmark() -> None:
    # raw.py is what the session is measured against; links.py drives a thousand clients without a thread each.
    assert {i.file for i in _who("paho")} == {"floe/session.py", "bench/raw.py", "bench/links.py"}


def test_sqlite_utils_is_imported_where_pandas_is_kept_out() -> None:
    assert {i.file for i in _who("sqlite_utils")} == {"floe/sqlite.py"}


def test_only_the_trainer_imports_torch_and_the_export_of_models_when_it_is_called() -> None:
    for found in _who("torch"):
        outside = found.file.startswith("aggregator/") and found.lazy
        assert found.file in TRAINER or outside, found


def test_the_trainer_is_imported_only_when_there_is_work() -> None:
    modules = {name.removesuffix(".py").replace("/", ".") for name in TRAINER}
    for found in IMPORTS:
        if any(found.module == m or found.module.startswith(f"{m}.") for m in modules):
            assert found.file in TRAINER or found.lazy or found.typing, found


def test_pandas_is_imported_only_where_tables_are_read_and_when_they_are() -> None:
    for found in _who("pandas"):
        assert found.file.startswith("edge_client/data/"), found
        assert found.lazy or found.typing, found


@pytest.mark.parametrize("module", ["sklearn", "streamlit", "dp_accounting", "safetensors", "segno", "zxingcpp", "PIL"])
def test_what_is_optional_is_imported_only_when_it_is_needed(module: str) -> None:
    assert [i for i in _who(module) if not (i.lazy or i.typing) and not i.file.startswith("ui/")] == []


def test_opacus_is_imported_only_by_what_the_trainer_imports_for_a_private_plan() -> None:
    private = {"edge_client/dpsgd.py", "edge_client/privacy.py"}
    assert {i.file for i in _who("opacus")} == private
    for found in IMPORTS:
        if found.module.startswith(("edge_client.dpsgd", "edge_client.privacy")):
            assert found.file in private or found.lazy, found


def test_nothing_unpickles() -> None:
    assert [i for i in IMPORTS if i.top in {"pickle", "cPickle", "shelve", "marshal", "dill", "joblib"}] == []


LOADERS = {"torch.load", "torch.jit.load", "torch.hub.load", "yaml.load", "eval", "exec", "compile"}


def _calls(source: str) -> Iterator[tuple[str, list[str]]]:
    """Every call: what is called, and its arguments that have a name, as they are written."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), [ast.unparse(keyword) for keyword in node.keywords]


def test_the_reader_of_calls_finds_them() -> None:
    source = "def f(x):\n    return [torch.load(x, weights_only=True), g(np.load(x, allow_pickle=y))]\n"
    found = dict(_calls(source))
    assert found["torch.load"] == ["weights_only=True"]
    assert found["np.load"] == ["allow_pickle=y"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_loads_what_could_be_a_pickle_or_runs_text(path: Path) -> None:
    """`torch.load` is no boundary, `weights_only` included; numpy's unpickles when it is told to."""
    for called, named in _calls(path.read_text(encoding="utf-8")):
        assert called not in LOADERS, called
        assert not called.endswith("read_pickle"), called
        assert not any(one.startswith("allow_pickle=") and one != "allow_pickle=False" for one in named), called


def test_what_is_pure_touches_neither_clock_nor_socket_nor_file_nor_chance() -> None:
    pure = {"floe/seal.py", "floe/signing.py", "floe/transfer.py", "floe/selection.py", "floe/topics.py"}
    pure |= {
        "floe/joincode.py",
        "floe/messages.py",
        "floe/plan.py",
        "floe/schema.py",
        "floe/report.py",
        "aggregator/rounds.py",
    }
    worldly = {"time", "datetime", "socket", "random", "secrets", "os", "pathlib", "threading", "subprocess", "sqlite3"}
    assert [i for i in IMPORTS if i.file in pure and i.top in worldly] == []
    assert pure <= {path.relative_to(ROOT).as_posix() for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_in_its_first_lines_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("aggregator.command", {"torch", "sklearn", "pandas"}),
        ("edge_client.command", {"torch", "sklearn", "pandas"}),
        ("broker.command", {"torch", "sklearn", "pandas", "numpy"}),
        ("floe.cli", {"torch", "sklearn", "pandas", "numpy"}),
    ],
)
def test_a_process_that_starts_does_not_load_what_it_does_not_need(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert heavy & set(done.stdout.split()) == set()


def test_the_wheel_has_every_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("packages = ") and "floe" in line)
    assert sorted(ast.literal_eval(line.removeprefix("packages = "))) == PACKAGES
