"""What the documents tell people to type exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from proscale_deploy.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "plugins/README.md"]


def commands(document: Path) -> list[str]:
    """Of all code blocks, and of code within the text where it has arguments."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|ini)$(.*?)^```$", text, re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(proscale-deploy [a-z]+ [^`]*)`", text)
    found = [re.search(r"proscale-deploy (?!-)[a-z].*", line) for line in lines if "proscale_deploy" not in line]
    return [match[0] for match in found if match]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_exist(document: Path) -> None:
    found = commands(document)
    assert found
    for line in found:
        _, *words = shlex.split(line.partition(" > ")[0].partition(" | ")[0], comments=True)
        command: click.Command = app
        while isinstance(command, click.Group):
            assert words, f"no verb: {line}"
            assert words[0] in command.commands, f"no such verb: {line}"
            command = command.commands[words.pop(0)]
        options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
        for index, word in enumerate(words):
            if word.startswith("--"):
                assert word in options, f"no option {word}: {line}"
                kind = options[word].type
                if isinstance(kind, click.Choice):
                    assert set(words[index + 1].split("|")) <= set(kind.choices), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    files = [target for target in targets if "://" not in target]
    assert [file for file in files if not (document.parent / file).exists()] == []
