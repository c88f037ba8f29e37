"""`ctnet config`: what recipes there are and what a run would use."""

from __future__ import annotations

import json

import typer

from ctnet.cli.arguments import split_arguments
from ctnet.cli.console import Terminal, say
from ctnet.cli.options import Arguments, AsJson

app = typer.Typer(help="List, show and validate recipes.", no_args_is_help=True)


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
def show(arguments: Arguments = None, as_json: AsJson = False) -> None:
    """Show every setting of a recipe and where its value comes from.

    Example: ctnet config show centernet_resdcn18 optimizer.lr=5e-4
    """
    from ctnet.config import load_recipe
    from ctnet.config.load import flatten

    name, overrides = split_arguments(arguments)
    loaded = load_recipe(name, overrides)
    if loaded.sources.get("model.heads", "default") != "default":  # else without importing torch
        from ctnet.families import assumed_keypoints, family_of

        family_of(loaded.recipe, assumed_keypoints(loaded.recipe.model))  # refuses heads that do not fit together
    if as_json:
        recipe = loaded.recipe.model_dump(mode="json")
        print(json.dumps({"schema": "ctnet.config.show/1", "recipe": recipe, "sources": dict(loaded.sources)}))
        return
    from rich.table import Table

    table = Table("setting", "value", "from")
    for key, value in flatten(loaded.recipe):
        source = loaded.sources[key]
        shown = ", ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
        table.add_row(key, shown, source, style="dim" if source == "default" else "")
    Terminal(soft_wrap=False).print(table)


@app.command()
def validate(arguments: Arguments = None) -> None:
    """Check a recipe without running it; exit 2 names the first mistake."""
    from ctnet.config import load_recipe
    from ctnet.families import assumed_keypoints, family_of

    name, overrides = split_arguments(arguments)
    recipe = load_recipe(name, overrides).recipe
    family_of(recipe, assumed_keypoints(recipe.model))  # refuses heads that do not fit together
    say(f"{recipe.name}: valid")
