"""docs/results.md and docs/results/*.svg, from the stored runs in docs/runs.

    python tests/bench/results.py            writes them
    python tests/bench/results.py --check    says what differs, and ends with 1 if anything does

A section is a module with `section(runs)`, its text, and `figures(runs)`, its SVG files by name; both are functions of
what lies in docs/runs alone. Runs that are not there end it with their name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import click
import results_attacks
import results_encoding
import results_insurance_bank
import results_mcmahan
import results_nbaiot
import results_privacy

DOCS = Path(__file__).parents[2] / "docs"
HEAD = Path(__file__).with_suffix(".md")


SECTIONS: tuple[ModuleType, ...] = (
    results_mcmahan, results_nbaiot, results_attacks, results_encoding, results_privacy, results_insurance_bank,
)  # fmt: skip


def made(runs: Path) -> dict[str, str]:
    """Every file, by its path in docs. Raises `click.ClickException` for runs that are not there."""
    texts = [HEAD.read_text(), *(one.section(runs) for one in SECTIONS)]
    drawn = {f"results/{name}": text for one in SECTIONS for name, text in one.figures(runs).items()}
    return {"results.md": "\n".join(f"{text.strip()}\n" for text in texts), **drawn}


def differing(files: Mapping[str, str], docs: Path) -> Iterator[str]:
    """The files of `docs` that are not as they would be made, and drawings that nothing makes."""
    for name, text in files.items():
        if not (docs / name).exists() or (docs / name).read_text() != text:
            yield name
    yield from (name for path in sorted(docs.glob("results/*")) if (name := f"results/{path.name}") not in files)


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="write nothing")
@click.option("--docs", type=click.Path(path_type=Path), default=DOCS, help="folder with runs/")
def main(check: bool, docs: Path) -> None:
    files = made(docs / "runs")
    if check:
        wrong = list(differing(files, docs))
        for name in wrong:
            click.echo(f"docs/{name}: is not what the stored runs give; run `python tests/bench/results.py`")
        sys.exit(1 if wrong else 0)
    for name, text in files.items():
        (docs / name).parent.mkdir(exist_ok=True)
        (docs / name).write_text(text)
    click.echo(f"{docs / 'results.md'}, and {len(files) - 1} figure(s)")


if __name__ == "__main__":
    main()
