"""Option types that publishing a sidecar and publishing a vindex share."""

from typing import Annotated

import typer

Org = Annotated[
    str | None,
    typer.Option(
        "--org",
        metavar="[ORG]",
        help="The organisation, or your own user name. Without a value: the login's only organisation.",
    ),
]
Collection = Annotated[
    str | None, typer.Option(metavar="TITLE", help="Put it into this collection of ORG. Default: into none.")
]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done; change nothing on the Hub or in the catalog.")
]
LicenceUnknown = Annotated[
    bool, typer.Option("--license-unknown", help="Go on although the base model's card states no licence.")
]
