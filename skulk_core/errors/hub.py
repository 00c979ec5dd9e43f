"""Errors of the Hub: finding, fetching and publishing."""

from skulk_core.errors.base import SkulkError


class HubError(SkulkError):
    """The Hub did not give what was asked of it."""

    def __init__(self, repo: str, reason: str) -> None:
        self.repo, self.reason = repo, reason
        super().__init__(f"{repo}: {reason}")


class HubUnreachable(HubError):
    """No answer from the Hub, and what was asked is not in the local cache."""


class RepoNotFound(HubError):
    """The repository does not exist, is private, or is gated and the login may not read it."""


class RevisionNotFound(HubError):
    """The repository exists, the revision does not."""

    def __init__(self, repo: str, revision: str) -> None:
        self.revision = revision
        super().__init__(repo, f"no revision {revision}")


class SourceChanged(HubError):
    """A file is not what it was when the work began."""

    def __init__(self, repo: str, file: str) -> None:
        self.file = file
        super().__init__(repo, f"{file} changed while it was being read")


class LoginError(HubError):
    """There is no login, or the Hub refused it: its token is wrong or has expired."""


class PermissionDenied(HubError):
    """The login may not do what is needed. `permission` says what that is, for a person."""

    def __init__(self, repo: str, permission: str, reason: str) -> None:
        self.permission = permission
        super().__init__(repo, f"{reason}; needed: {permission}")


class HubBusy(HubError):
    """The Hub, or the way to it, stayed out of order through every retry. Nothing is known of what was asked."""


class PublishConflict(HubError):
    """What is in the repository already is not what would be published, or it changed meanwhile."""


class NameTaken(PublishConflict):
    """The repository holds something that was made from another source."""
