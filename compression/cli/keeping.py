"""The commands that show and keep: inspect, store, recipe, cache, doctor."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from compression import cache as stored
from compression.bundle import open_bundle
from compression.bundle.signature import Signers, sign
from compression.cli.folders import cache_option, home
from compression.options import DIRECTORY, FILE
from compression.recipe import preset_names, preset_text


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE and say what it is."""
    opened = open_bundle(bundle)
    if as_json:
        click.echo(opened.manifest.to_json(), nl=False)
        return
    from compression.report.page import print_comparison
    from compression.report.words import printable, reading

    manifest = opened.manifest
    click.echo(f"version     {opened.version}")
    click.echo(f"parent      {printable(manifest.parent.name)}")
    click.echo(f"recipe      {printable(str(manifest.recipe.get('name')))}")
    click.echo(f"window      {manifest.max_length} tokens")
    click.echo(f"long texts  {reading(manifest.runtime.long_texts)}")
    click.echo(f"task        {manifest.task}")
    click.echo(f"inputs      {'pairs of texts' if manifest.inputs == 'pairs' else 'texts'}")
    click.echo(f"labels      {', '.join(map(printable, manifest.labels))}")
    click.echo(f"batch-exact {'yes' if manifest.runtime.batch_exact else 'no'}")
    if abstain := manifest.runtime.abstain:
        click.echo(f"abstains    below a confidence of {abstain.below:.4f}, for an error of {100 * abstain.error:g} %")
    print_comparison(str(bundle), manifest)


@click.command("sign")
@click.argument("bundle", type=DIRECTORY)
@click.option("--key", type=FILE, required=True, help="The private key; lathe keys signing makes one.")
def sign_bundle(bundle: Path, key: Path) -> None:
    """Sign BUNDLE: a service with LATHE_SIGNED_BY takes no other."""
    click.echo(sign(open_bundle(bundle), key))


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option(
    "--key",
    "keys",
    type=FILE,
    multiple=True,
    required=True,
    help="A public key that may have signed it; can be given several times.",
)
def verify(bundle: Path, keys: tuple[Path, ...]) -> None:
    """Verify that BUNDLE is whole, and signed with one of the keys."""
    signers = Signers.of(keys)
    opened = open_bundle(bundle)
    click.echo(f"{bundle}: version {opened.version}, signed with {signers.require(opened)}")


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option("--name", required=True, help="Name in the store; the version is added to it.")
def store(bundle: Path, name: str) -> None:
    """Put BUNDLE into BentoML's model store and print its tag."""
    from compression.store import store_bundle

    if not os.environ.get("BENTOML_HOME"):
        home("set BENTOML_HOME to the directory of the model store")
    click.echo(store_bundle(open_bundle(bundle), name))


@click.group()
def recipe() -> None:
    """The recipes that come with Lathe."""


@recipe.command("list")
def list_recipes() -> None:
    """Print name and purpose of each."""
    for name in preset_names():
        click.echo(f"{name:<9} {preset_text(name).splitlines()[0].removeprefix('# ')}")


@recipe.command("show")
@click.argument("name")
def show_recipe(name: str) -> None:
    """Print the recipe NAME as YAML: a file to start one's own from."""
    click.echo(preset_text(name), nl=False)


@click.group()
def cache() -> None:
    """What is kept between runs, so that they go on from it."""


@cache.command("show")
@cache_option
def show_cache(cache: Path) -> None:
    """Print what there is and how much of the disk it takes."""
    parts = stored.contents(cache)
    for part in parts:
        click.echo(f"{part.name:<21} {part.entries:>5} {part.size_bytes / 1e6:>8.1f} MB")
    total = sum(part.size_bytes for part in parts) / 1e6
    click.echo(f"{cache}: {total:.1f} MB; steps are kept up to {stored.MAX_STEPS_BYTES / 1e9:.0f} GB")


@cache.command("clear")
@cache_option
def clear_cache(cache: Path) -> None:
    """Remove it; later runs begin anew."""
    stored.clear(cache)
    click.echo(f"{cache}: empty")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def doctor(as_json: bool) -> None:
    """Say what this machine and environment have, what is missing, and what would be slow here and why."""
    from compression.doctor import examine, findings_text

    findings = examine()
    click.echo(json.dumps(asdict(findings), indent=2) if as_json else findings_text(findings))
