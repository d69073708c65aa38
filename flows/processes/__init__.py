"""Programs that we start or talk to: child processes, git, DVC, servers, text from outside.

It imports nothing of ours but `mammo.base`.
"""

__all__ = [
    "checked",
    "dvc_remote",
    "folder_lock",
    "follow",
    "prefect_home",
    "proxies",
    "reach",
    "run_dvc",
    "run_git",
    "words",
]
