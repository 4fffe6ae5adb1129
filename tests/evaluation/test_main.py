"""`python -m evaluation`, and what it imports."""

import subprocess
import sys

from evaluation.__main__ import main


def test_it_says_which_challenges_there_are(capsys):
    assert main(["--help"]) == 0
    assert "python -m evaluation.general_nlp  MMLU STEM" in capsys.readouterr().out
    assert main([]) == 2
    assert "python -m evaluation.finance" in capsys.readouterr().out
    assert main(["finance", "x"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: finance is no challenge of this command.\n")


def test_nothing_is_imported_from_the_working_directory(tmp_path):
    """Critical 2: `python -m` puts that first on the path, and it may be somebody else's."""
    names = ("torch", "json", "argparse", "yaml", "challenges", "flowertune", "pathlib")
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"open('imported-{name}', 'w')")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("open('imported-datasets', 'w')")
    for words in (["-m", "evaluation"], ["-m", "evaluation.finance", "--help"]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True)
        assert b"evaluation" in done.stdout, done.stderr
    assert not list(tmp_path.glob("imported-*"))
