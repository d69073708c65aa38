"""Puts objects of DVC's cache on the default remote, and asks there for each of them.

    python -m flows.publishing.push_objects HASHES.json  # DVC's hashes; prints those that it lacks

`dvc push` and `dvc status --cloud` take the files of a folder for pushed where the remote has the
folder's list: what was lost there stays lost, and nobody hears of it.
"""

import json
import sys
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer


def push(root: Path, hashes: list[str]) -> list[str]:
    """Push what the remote lacks; return what it lacks then."""
    with Repo(str(root)) as repo:
        cache, remote = repo.cache.local, repo.cloud.get_remote_odb(None, "push")
        absent = set(hashes) - set(remote.oids_exist(hashes))
        here = [HashInfo("md5", md5) for md5 in absent if cache.exists(md5)]
        transfer(cache, remote, here)
        return sorted(absent - set(remote.oids_exist(sorted(absent)))) if absent else []


if __name__ == "__main__":
    print(json.dumps(push(Path.cwd(), json.loads(Path(sys.argv[1]).read_text()))))
