"""Follows the Dockerfile without Docker: in a Debian that debootstrap makes, with chroot, as root.

    python deploy/rehearse_image.py FOLDER [COMMAND...]

FOLDER becomes the file system of the image. Then COMMAND (default: `crawlscope demo`) runs in it as the
image's user, with a read-only root, where only `/data` and `/tmp` can be written. What it does not show: the
base image's own Python (Debian's takes its place), the entry point and the health check.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
OF_THIS_HOST = ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
"""How it reaches the package index."""
COPIED_BY_NAME = re.compile(r"COPY (?P<sources>(?!--).+) (?P<target>\S+)")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"}


def main() -> None:
    if len(sys.argv) < 2 or os.geteuid() != 0:
        sys.exit(f"{__doc__}\nIt needs a folder, and root.")
    root = Path(sys.argv[1]).resolve()
    debootstrap(root)
    environment, user = build(root)
    sys.exit(run_read_only(root, environment, user, sys.argv[2:] or ["crawlscope", "demo"]))


def debootstrap(root: Path) -> None:
    if not (root / "etc/debian_version").exists():
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (root / "usr/bin/python").unlink(missing_ok=True)
    (root / "usr/bin/python").symlink_to("python3")
    for name in OF_THIS_HOST:
        if (source := Path("/", name)).exists():
            shutil.copy(source, root / name)


def build(root: Path) -> tuple[dict[str, str], str]:
    """Both stages in one file system. Returns the environment of the image and its user."""
    environment = dict(ENVIRONMENT)
    building = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "UV_SYSTEM_CERTS": "1"}
    folder, user = "/", "0"
    for instruction in instructions((SOURCE / "Dockerfile").read_text(encoding="utf-8")):
        word, _, rest = instruction.partition(" ")
        print(f"{word} {rest}", flush=True)
        if word == "FROM":
            environment, folder = dict(ENVIRONMENT), "/"
        elif word == "ENV":
            pairs = (each.partition("=")[::2] for each in shlex.split(rest))
            environment |= {name: value.replace("$PATH", environment["PATH"]) for name, value in pairs}
        elif word == "WORKDIR":
            folder = rest
            (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            user = rest
        elif copied := COPIED_BY_NAME.fullmatch(instruction):
            copy(root, folder, copied["sources"].split(), copied["target"])
        elif word == "RUN":
            command = ["chroot", str(root), "sh", "-c", f"cd {folder} && {rest}"]
            subprocess.run(command, check=True, env=building | environment)
    return environment, user


def instructions(dockerfile: str) -> list[str]:
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.startswith("#")]
    return [re.sub(r"\s+", " ", each) for each in "\n".join(lines).replace("\\\n", " ").split("\n")]


def copy(root: Path, folder: str, sources: list[str], target: str) -> None:
    to = root / folder.lstrip("/") / target
    for name in sources:
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, to, dirs_exist_ok=True)
        else:
            shutil.copy(SOURCE / name, to)


def run_read_only(root: Path, environment: dict[str, str], user: str, command: list[str]) -> int:
    script = f"""
        set -e
        mount --bind {shlex.quote(str(root))} {shlex.quote(str(root))}
        cd {shlex.quote(str(root))}
        mount -t proc proc proc
        mount -t tmpfs -o mode=1777 tmpfs tmp
        mount -t tmpfs -o uid={user},mode=0700 tmpfs data
        for device in null zero random urandom; do mount --bind /dev/$device dev/$device; done
        mkdir -p dev/shm && mount -t tmpfs -o mode=1777 tmpfs dev/shm
        ip link set lo up 2>/dev/null || true
        mount -o remount,ro,bind .
        exec chroot --userspec={user}:{user} . "$@"
    """
    inside = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", *command]
    return subprocess.run(inside, env=environment, check=False).returncode


if __name__ == "__main__":
    main()
