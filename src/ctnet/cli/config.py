"""`ctnet config`: what recipes there are and what a run would use."""

from __future__ import annotations

import json
from dataclasses import asdict
from textwrap import wrap
from typing import Annotated, Any

import typer

from ctnet.cli.arguments import split_arguments
from ctnet.cli.console import Terminal, say
from ctnet.cli.options import Arguments, AsJson

app = typer.Typer(help="List, show, explain and validate recipes.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="[KEY]", help="Setting or section, such as optimizer.lr or augment")]
AsYaml = Annotated[bool, typer.Option("--yaml", help="Print a recipe file with every setting")]


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that ship with ctnet."""
    from ctnet.config import recipe_titles

    titles = recipe_titles()
    if as_json:
        print(json.dumps({"schema": "ctnet.config.list/1", "recipes": list(titles), "titles": titles}))
        return
    width = max(map(len, titles))
    for name, title in titles.items():
        say(f"{name:<{width}}  {title}")


@app.command()
def explain(key: Key = "", as_json: AsJson = False) -> None:
    """Explain a setting, those of a section, or all: meaning, values, default.

    Example: ctnet config explain augment.crop
    """
    from ctnet.config.explain import explain as settings_of

    settings = settings_of(key)
    if as_json:
        print(json.dumps({"schema": "ctnet.config.explain/1", "settings": [asdict(one) for one in settings]}))
        return
    for number, one in enumerate(settings):
        if number:
            say("")
        family = f"  (family {', '.join(one.families)})" if one.families else ""
        say(f"{one.key}{family}")
        say(*(f"  {line}" for line in wrap(one.meaning, 88)))
        say(f"  values   {one.values}")
        say(f"  default  {_shown(one.default)}")


@app.command()
def show(arguments: Arguments = None, as_yaml: AsYaml = False, as_json: AsJson = False) -> None:
    """Show every setting of a recipe and where its value comes from.

    Example: ctnet config show centernet_resdcn18 optimizer.lr=5e-4
    """
    from ctnet.config import load_recipe
    from ctnet.config.load import flatten, to_yaml

    name, overrides = split_arguments(arguments)
    loaded = load_recipe(name, overrides)
    if loaded.sources.get("model.heads", "default") != "default":  # else without importing torch
        from ctnet.families import assumed_keypoints, family_of

        family_of(loaded.recipe, assumed_keypoints(loaded.recipe.model))  # refuses heads that do not fit together
    if as_json:
        recipe = loaded.recipe.model_dump(mode="json")
        print(json.dumps({"schema": "ctnet.config.show/1", "recipe": recipe, "sources": dict(loaded.sources)}))
        return
    if as_yaml:
        print(to_yaml(loaded.recipe), end="")
        return
    rows = [(key, _shown(value), loaded.sources[key]) for key, value in flatten(loaded.recipe)]
    key_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    terminal = Terminal()  # lines of a narrow terminal wrap, so that no key is cut
    for key, value, source in rows:
        line = f"{key:<{key_width}}  {value:<{value_width}}  {source}"
        terminal.print(line, style="dim" if source == "default" else "")


@app.command()
def validate(arguments: Arguments = None) -> None:
    """Check a recipe without running it; exit 2 names the first mistake."""
    from ctnet.config import load_recipe
    from ctnet.families import assumed_keypoints, family_of

    name, overrides = split_arguments(arguments)
    recipe = load_recipe(name, overrides).recipe
    family_of(recipe, assumed_keypoints(recipe.model))  # refuses heads that do not fit together
    say(f"{recipe.name}: valid")


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
