"""Repositories of git for tests."""

import subprocess
from pathlib import Path


def init_repository(root: Path, name: str = "Tester") -> None:
    """Make a repository of a folder, with the branch `main` and a person who commits.

    Args:
        root: the folder.
        name: of the person; the address is tester@localhost.
    """
    for arguments in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("config", "user.name", name),
        ("config", "user.email", "tester@localhost"),
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)
