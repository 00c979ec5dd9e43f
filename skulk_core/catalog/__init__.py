"""The catalog: any model → the draft head, assistant or vindex of its base model."""

from skulk_core.catalog.lookup import Catalog
from skulk_core.catalog.resolve import Outcome, Resolution, Rule, Step, resolve
from skulk_core.catalog.subject import Subject
from skulk_core.catalog.user import Change, add_entry, user_catalog
from skulk_core.formats.catalog import AssistantEntry, Entry, Fingerprint, HeadEntry, SidecarEntry, VindexEntry

__all__ = [
    "AssistantEntry",
    "Catalog",
    "Change",
    "Entry",
    "Fingerprint",
    "HeadEntry",
    "Outcome",
    "Resolution",
    "Rule",
    "SidecarEntry",
    "Step",
    "Subject",
    "VindexEntry",
    "add_entry",
    "resolve",
    "user_catalog",
]
