"""The catalog: any model name → the draft head that fits it."""

from skulk_core.catalog.lookup import Because, Catalog, Found, NotFound, Rule
from skulk_core.formats.catalog import AssistantEntry, SidecarEntry, VindexEntry

__all__ = ["AssistantEntry", "Because", "Catalog", "Found", "NotFound", "Rule", "SidecarEntry", "VindexEntry"]
