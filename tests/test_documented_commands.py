"""Every command that the docs show is one that its program takes."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from qdformer.config.loading import find_config, load_config
from qdformer.config.validation import check_config

ROOT = Path(__file__).parents[1]
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("datasets/*.md")]
PLACES = ("projects/QDFormer", "datasets")


def commands():
    """The lines of the docs' code blocks that run one of the scripts."""
    for path in sorted(DOCS):
        text = path.read_text(encoding="utf-8")
        for language, block in re.findall(r"(?ms)^```(\w*)\n(.*?)^```", text):
            if language:
                continue
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                # What is in brackets may be left out.
                line = re.sub(r"\[[^\]]*\]", "", line)
                if re.search(r"\w+/\w+\.py", line) and "install/" not in line:
                    yield pytest.param(line, id=f"{path.name}: {line[:70]}")


def parsed(line):
    """Script and arguments of a line; torchrun's own come before the script."""
    words = shlex.split(line, comments=True)
    place = next(index for index, word in enumerate(words) if word.endswith(".py"))
    script = Path(words[place])
    assert str(script.parent) in PLACES and (ROOT / script).is_file(), script
    module = importlib.import_module(f"qdformer.commands.{script.stem}")
    return module, words[place + 1 :]


@pytest.mark.parametrize("line", commands())
def test_its_program_takes_it(line, monkeypatch):
    module, words = parsed(line)
    args = module.parser().parse_args(words)
    config = getattr(args, "config_file", "")
    if not config:
        return
    monkeypatch.chdir(ROOT)
    cfg = load_config(find_config(config), args.opts)
    # A data set, an architecture or weights of one's own are not there.
    if not args.imports:
        check_config(cfg)


def test_all_scripts_are_shown():
    shown = {parsed(case.values[0])[0].__name__.rpartition(".")[2] for case in commands()}
    scripts = {path.stem for place in PLACES for path in (ROOT / place).glob("*.py")}
    assert scripts - shown == {"quickstart"}  # make demo
