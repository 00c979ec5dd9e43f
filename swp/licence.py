"""The licence of what is published: upstream's, unchanged, or none, which has to be said out loud."""

from skulk_core.errors import LicenceUnknown
from skulk_core.formats.provenance import Licence

UNKNOWN = "unknown"  # the Hub's own word for it


def require_licence(licence: Licence, source: str, licence_unknown: bool) -> None:
    """Raise `LicenceUnknown` if upstream's card states no licence and nobody said to go on nevertheless."""
    if not licence.id and not licence_unknown:
        raise LicenceUnknown(source, "its card states no licence, so nobody can say what may be done with it")


def licence_fields(licence: Licence) -> dict[str, str | list[str]]:
    """The fields `license`, `license_name` and `license_link` of a card: those that upstream's card has, unchanged.

    Without a `license` there, it is the Hub's `unknown`.
    """
    if not licence.id:
        return {"license": UNKNOWN}
    fields: dict[str, str | list[str]] = {"license": licence.id if isinstance(licence.id, str) else list(licence.id)}
    if licence.name is not None:
        fields["license_name"] = licence.name
    if licence.link is not None:
        fields["license_link"] = licence.link
    return fields
