"""The one module that calls git.

A person's settings say how they like to work: signing, hooks, editors, pagers, line ends. Nobody
sees an editor that git opens for us, and a hook may change what is checked out. So each call sets
whatever could change git's work or make it wait, and overrides the person's own settings and the
repository's. What is needed to reach a remote stays theirs: credentials, ssh, proxies,
`url.*.insteadOf`, `safe.directory`, and their name.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.processes.proxies import list_unused_proxies
from mammo.base.errors import UserError

PATIENCE = 300.0  # seconds for one call; only a remote that does not answer takes so long

_BRANCH_MOVED = "cannot lock ref"  # what git says when another process moved a branch meanwhile
_TRIES, _LONGEST_PAUSE = 8, 0.5  # of a fetch; seconds

_SETTINGS = {
    # Git asks no questions: no person is there to answer them.
    "core.editor": "true",
    "sequence.editor": "true",
    "core.pager": "cat",
    "credential.interactive": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "tag.forceSignAnnotated": "false",
    "log.showSignature": "false",
    "merge.verifySignatures": "false",
    # What lies in the folder is what the commit holds, byte for byte.
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.safecrlf": "false",
    "core.sparseCheckout": "false",
    "submodule.recurse": "false",
    # What is pushed is what was named.
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "worktree.useRelativePaths": "false",
    # Nothing runs in the background, and git reads the folder itself, not a cached index of it.
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # What git prints is read.
    "core.quotePath": "false",
    "color.ui": "false",
    "column.ui": "never",
    "diff.renames": "false",
    "diff.relative": "false",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
}
_OPTIONS = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]

_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_EDITOR": "true",
    "GIT_SEQUENCE_EDITOR": "true",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}
# Of git's own variables those stay that reach a remote or tell who a person is. The others, such as
# the GIT_DIR and GIT_INDEX_FILE that a hook leaves behind, would point it elsewhere.
_KEPT = (
    "GIT_ASKPASS",
    "GIT_AUTHOR_EMAIL",
    "GIT_AUTHOR_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_VALUE_",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_EXEC_PATH",
    "GIT_HTTP_",
    "GIT_PROXY_",
    "GIT_SSH",
    "GIT_SSL_",
)


class NoAnswerError(UserError):
    """Git did not end in time: most often because a remote does not answer.

    This is no answer to what was asked: the next try may succeed.
    """


def git(
    root: Path,
    *arguments: str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    patience: float | None = None,
) -> str:
    """Run git in `root` and return what it prints, without the last newline.

    Args:
        root: where.
        arguments: of git.
        stdin: what it reads.
        env: variables besides those of this process.
        patience: seconds that it may take; PATIENCE without it.

    Raises:
        UserError: with git's own words if it fails, or if it does not end.
    """
    status, out, said = _run(root, arguments, stdin, env, patience)
    if status != 0:
        raise UserError(f"git {' '.join(arguments)}: {_decode(said).strip()}")
    return _decode(out).rstrip("\n")


def succeeds(root: Path, *arguments: str) -> bool:
    """Whether a call of git ends with status 0."""
    return _run(root, arguments)[0] == 0


def list_entries(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> list[str]:
    """Run git with `-z` among the arguments, and return the entries that it prints.

    Raises:
        UserError: as `git`.
    """
    return [entry for entry in git(root, *arguments, env=env).split("\0") if entry]


def read_file_at(root: Path, revision: str, name: str) -> str:
    """A file's exact text at a revision, last newline included.

    Raises:
        UserError: if the revision has no such file, or it is no UTF-8.
    """
    arguments = ["cat-file", "blob", f"{revision}:{name}"]
    status, out, said = _run(root, arguments)
    if status != 0:
        raise UserError(f"git {' '.join(arguments)}: {_decode(said).strip()}")
    try:
        return out.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{name} of the revision {revision} is no UTF-8 text: {error}") from None


def has_commit(root: Path, commit: str) -> bool:
    """Whether the clone holds a commit."""
    return succeeds(root, "cat-file", "-e", f"{commit}^{{commit}}")


def has_ref(root: Path, ref: str) -> bool:
    """Whether the clone has a ref of this full name, such as `refs/tags/model/v3`."""
    return succeeds(root, "show-ref", "--verify", "--quiet", ref)


def is_ancestor(root: Path, one: str, other: str) -> bool:
    """Whether a commit is another one, or comes before it."""
    return succeeds(root, "merge-base", "--is-ancestor", one, other)


def list_paths(root: Path, revision: str, *paths: str) -> list[str]:
    """Those of these paths that a revision holds; of one that ends with a slash, what is in it.

    Raises:
        UserError: if there is no such revision.
    """
    return list_entries(root, "ls-tree", "-z", "--name-only", revision, "--", *paths)


def read_remote_refs(
    root: Path, remote: str, pattern: str, patience: float | None = None
) -> dict[str, str]:
    """The refs of a remote that fit a pattern, by their full names; what each points to.

    Args:
        root: the clone.
        remote: its name or address.
        pattern: of git's ls-remote.
        patience: as for `git`.

    Raises:
        UserError: if the remote does not answer.
    """
    answer = git(root, "ls-remote", "--refs", remote, pattern, patience=patience)
    return {name: id_ for id_, _, name in (row.partition("\t") for row in answer.splitlines())}


def list_changes(root: Path, one: str, other: str) -> list[str]:
    """Files that differ between two commits.

    Raises:
        UserError: if one of the commits is not there.
    """
    return list_entries(root, "diff-tree", "-r", "-z", "--name-only", "--no-renames", one, other)


def list_remotes(root: Path) -> list[str]:
    """The clone's remotes, by name."""
    return git(root, "remote").split()


def fetch(root: Path, *arguments: str) -> None:
    """Fetch from the clone's remotes; nothing in the clone is removed.

    If another fetch of the same clone, a person's or a watch's beside a retrain, moves a branch
    first, git gives up, so it is asked again.

    Raises:
        UserError: with git's own words if it fails, or if no answer comes.
    """
    # As options, since `remote.NAME.prune` would override a setting: it would remove tags that were
    # not pushed yet.
    options = ("--no-prune", "--no-prune-tags", "--no-recurse-submodules", "--no-auto-maintenance")
    for tries_left in reversed(range(_TRIES)):
        try:
            git(root, "fetch", "--quiet", *options, *arguments)
        except UserError as error:
            if not (tries_left and _BRANCH_MOVED in str(error)):
                raise
            time.sleep(random.uniform(0, _LONGEST_PAUSE))
        else:
            return


def _run(
    root: Path,
    arguments: Sequence[str],
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    patience: float | None = None,
) -> tuple[int, bytes, bytes]:
    """Exit status, stdout and stderr.

    Git runs in a session of its own, which has no terminal: ssh and other programs would ask for
    passwords at one, whatever their settings say.
    """
    limit = PATIENCE if patience is None else patience
    try:
        child = subprocess.Popen(
            ["git", *_OPTIONS, *arguments],
            cwd=root,
            env={**_make_environment(), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise UserError(f"git cannot be run in {root}: install git, or see to the folder") from None
    try:
        out, said = child.communicate((stdin or "").encode(), timeout=limit)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise NoAnswerError(
            f"git {arguments[0]} in {root} did not end within {limit:g} s: see to it that "
            f"`git {arguments[0]}` ends there without asking anything (network, proxy, password)"
        ) from None
    return child.returncode, out, said


def _make_environment() -> dict[str, str]:
    ours = {
        name: value
        for name, value in os.environ.items()
        if name != "LANGUAGE" and (not name.startswith("GIT_") or name.startswith(_KEPT))
    }
    return {**ours, **list_unused_proxies(), **_ENVIRONMENT}


def _decode(output: bytes) -> str:
    return output.decode(errors="backslashreplace")
