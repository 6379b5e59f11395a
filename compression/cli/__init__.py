"""The commands around compression."""

import click

from compression.cli.keeping import cache, doctor, inspect, recipe, sign_bundle, store, verify
from compression.cli.making import compress, finetune
from compression.cli.measuring import bench, compare, evaluate

COMMANDS: list[click.Command] = [
    finetune, compress, evaluate, inspect, sign_bundle, verify, store, bench, compare, recipe, cache, doctor
]  # fmt: skip
