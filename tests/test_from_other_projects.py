"""The guide for users of other projects names options, settings and commands that exist."""

import re
from pathlib import Path

import pytest
import typer

from ctnet.cli.app import app
from ctnet.config import Recipe
from ctnet.config.load import flatten

PAGE = (Path(__file__).parents[1] / "docs" / "from-other-projects.md").read_text(encoding="utf-8")
HERE = [row.split(" | ")[1] for row in PAGE.splitlines() if row.startswith("| ") and " | " in row]
COMMANDS = sorted({command for cell in HERE for command in re.findall(r"`(ctnet [^`]+)`", cell)})


def options(words):
    """Return the options of the command that the words begin with."""
    command, name = typer.main.get_command(app), ""
    for word in words:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command, name = inner, f"{name} {word}"
    assert name, f"no command: {words}"
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_the_commands_exist(command):
    words = command.replace("[", " ").replace("]", " ").split()[1:]
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options(words)


def test_settings_exist():
    keys = {key for key, _ in flatten(Recipe())}
    sections = "|".join(sorted({key.partition(".")[0] for key in keys if "." in key}))
    named = set(re.findall(rf"\b((?:{sections})\.[a-z_0-9]+)", PAGE))
    assert named - keys - {"train.json", "evaluation.py"} == set()


def test_every_project_has_a_table():
    assert PAGE.count("| there | here |") == 6
