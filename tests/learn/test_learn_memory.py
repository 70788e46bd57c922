"""Learning from a buffer that is larger than the memory it may take."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orl_ldm.buffer import BufferWriter, Header, ImageRef
from orl_ldm.reward import TERMS

FEATURES, SHARDS, ROWS, STEPS = 512, 32, 2048, 8
BUFFER_BYTES = FEATURES * SHARDS * ROWS * 4
LIMIT = BUFFER_BYTES // 2

#: Trains in memory, then within 1.25 `limit` more than the process has taken by then, and then tries it without.
TRAIN = """
import gc, resource, sys, threading
from dataclasses import replace
from orl_ldm.errors import UserError
from orl_ldm.learn import CriticConfig, JudgeConfig, PPOConfig, TrainConfig, train

buffer, out, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
threading.stack_size(2**20)  # stacks are set aside rather than used, but count
critics = CriticConfig(epochs=2, steps=3, batch_size=64, critic_hidden=(64, 64))  # networks count as well
ppo, judge = PPOConfig(epochs=2, steps_per_epoch=256), JudgeConfig(steps=200, n_candidates=1)
config = TrainConfig((buffer,), "", device="cpu", critics=critics, ppo=ppo, judge=judge)
for algo in ("critics", "ppo"):
    train(replace(config, algo=algo, out=f"{out}/free-{algo}"), progress=False)
gc.collect()  # garbage of the free trainings must not count as taken
status = open("/proc/self/status").read()
taken = int(status[status.index("VmData:"):].split()[1]) * 1024
most = taken + limit + limit // 4  # (a minibatch and the like come and go beside the columns)
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
for algo in ("critics", "ppo"):
    train(replace(config, algo=algo, out=f"{out}/limited-{algo}", memory_limit=limit), progress=False)
try:
    train(replace(config, out=f"{out}/failed"), progress=False)
except UserError as error:
    print(error)
"""


def write(folder: Path, shards: int) -> None:
    """A buffer of wide observations, of which a few decide the reward."""
    header = Header(
        feature_names=("position/decision", *(f"f{i}" for i in range(1, FEATURES))),
        action_names=("aim",),
        action_low=(0.0,),
        action_high=(1.0,),
        term_names=tuple(TERMS),
        nfe_max=20,
        pipeline_digest="toy",
        ldm_id="toy",
        ldm_digest="toy",
        behavior_id="uniform",
        seed=1,
        packages={},
    )
    for shard in range(shards):
        rng = np.random.default_rng(shard)
        ends = np.arange(ROWS) % STEPS == STEPS - 1
        episode = shard * ROWS + np.arange(ROWS) // STEPS
        terms = np.zeros((ROWS, len(TERMS)), np.float32)
        terms[ends] = rng.random((ends.sum(), len(TERMS)), dtype=np.float32)
        columns = {
            "observations": rng.standard_normal((ROWS, FEATURES), dtype=np.float32),
            "actions": rng.random((ROWS, 1), dtype=np.float32),
            "log_probs": np.zeros(ROWS, np.float32),
            "terminals": ends,
            "terms": terms,
            "episode_id": episode,
            "image_id": episode // 4,
        }
        images = [ImageRef(int(i), f"{i}.png", "forest") for i in np.unique(columns["image_id"])]
        BufferWriter(folder, header).write(f"shard-{shard:03d}", columns, images)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits of memory are those of Linux")
def test_a_buffer_of_twice_the_memory_limit_gives_the_same_policy(tmp_path: Path) -> None:
    """The process really may not take more than the limit and a quarter: too little for the buffer in memory."""
    write(tmp_path / "buffer", SHARDS)
    cache = tmp_path / "cache"
    places = {"PYTHONPATH": os.pathsep.join(sys.path), "ORL_LDM_CACHE": str(cache)}
    one_heap = {"MALLOC_ARENA_MAX": "1"}  # what threads set aside for themselves depends on how they take turns
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "buffer"), str(tmp_path), str(LIMIT)],
        env=os.environ | places | one_heap,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "set memory_limit" in done.stdout
    for algo in ("critics", "ppo"):
        free, limited = (tmp_path / f"{kind}-{algo}/policy/policy.safetensors" for kind in ("free", "limited"))
        assert free.read_bytes() == limited.read_bytes()
    assert not any(path.is_file() for path in cache.rglob("*"))  # nothing is left behind
