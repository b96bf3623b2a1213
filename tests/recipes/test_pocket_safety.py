"""What a training may meet: a killed process, a full disk, broken files, data of other origin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import checkpoint, shards
from recipes.pocket.data import make_shard, write_atomically
from recipes.pocket.encode import encode_shard, write_grey
from recipes.pocket.export import same_encoder
from recipes.pocket.scenes import scenes
from recipes.pocket.sequences import Sequences
from recipes.pocket.stage import Lost, train
from recipes.pocket.train_vae import load_frames
from tests.recipes.small import autoencoder, dit_trainer, vae_trainer
from worldline.core.errors import CheckpointError, InputError, ShapeError

KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import torch
from recipes.pocket import checkpoint

path = Path(sys.argv[1])
checkpoint.save(path, {"model": {"w": torch.ones(1000)}, "step": 7})
whole = torch.save

def half(state, file):
    whole(state, file)
    file.truncate(file.tell() // 2)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = half
checkpoint.save(path, {"model": {"w": torch.zeros(1000)}, "step": 8})
"""


KILLED_OVER_ITS_CHILDREN = """
import argparse, sys
from pathlib import Path
from recipes.pocket.processes import start
from tests.recipes.small import sit

if __name__ == "__main__":
    start(sit, 2, argparse.Namespace(out=Path(sys.argv[1])))
"""


def test_the_processes_of_a_run_end_with_the_one_that_started_them(
    tmp_path: Path, repo_root: Path
) -> None:
    """Or two runs would write one checkpoint in turn."""
    script = tmp_path / "run.py"
    script.write_text(KILLED_OVER_ITS_CHILDREN)
    command = [sys.executable, str(script), str(tmp_path)]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repo_root), *sys.path])}
    with subprocess.Popen(command, cwd=repo_root, env=where, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        said = {run.stdout.readline() for _ in range(2)}
        assert said == {b"rank 0 of 2\n", b"rank 1 of 2\n"}
        run.kill()
        assert run.stdout.read() == b"", "the pipe ends when the last of them is gone"


def test_a_process_killed_while_saving_leaves_the_old_file(
    encoded: Path, tmp_path: Path, repo_root: Path
) -> None:
    path = tmp_path / "dit.pt"
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(path)]
    ended = subprocess.run(command, cwd=repo_root, check=False, timeout=100)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "dit.pt.part").stat().st_size > 0, "it was killed in the middle"
    assert checkpoint.load(path)["step"] == 7
    checkpoint.save(path, {"model": {}, "step": 9})
    assert checkpoint.load(path)["step"] == 9, "the half file is in nobody's way"
    assert not (tmp_path / "dit.pt.part").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_old_file_and_the_run_goes_on_from_it(
    encoded: Path, tmp_path: Path
) -> None:
    data, path = Sequences(encoded), tmp_path / "dit.pt"
    whole = dit_trainer(tmp_path / "whole.pt")
    run = dit_trainer(path)
    for trainer in (whole, run):
        trainer.train_step(data, 0)
    run.save()
    run.train_step(data, 0)
    (tmp_path / "dit.pt.part").symlink_to("/dev/full")
    with pytest.raises((OSError, RuntimeError)):
        run.save()
    assert not (tmp_path / "dit.pt.part").is_symlink(), "what was written of it is gone"
    again = dit_trainer(path)
    assert again.step == 1
    for trainer in (whole, again):
        trainer.train_step(data, 0)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name

    (tmp_path / "walks-0000.npz.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="space"):
        write_atomically(tmp_path / "walks-0000.npz", frames=np.zeros(100_000))
    assert not (tmp_path / "walks-0000.npz").exists()


def test_a_lost_training_does_not_replace_its_checkpoint(
    frames: np.ndarray, tmp_path: Path
) -> None:
    run = vae_trainer(frames, tmp_path / "vae.pt", steps=2)
    run.save()
    with torch.no_grad():
        next(iter(run.vae.parameters())).fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"stays as it was.*expected finite weights"):
        run.save()
    with pytest.raises(Lost, match="last checkpoint is from before"):
        train(run, frames[:1, :5])
    assert checkpoint.load(tmp_path / "vae.pt")["step"] == 0


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dit.pt"
    checkpoint.save(path, {"model": {"w": torch.ones(1000)}})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(CheckpointError, match=r"dit\.pt cannot be read"):
        checkpoint.load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"dit\.pt cannot be read"):
        checkpoint.load(path)


def changed(source: Path, target: Path, **fields: np.ndarray) -> None:
    """A copy of a shard with some fields replaced."""
    with np.load(source) as shard:
        write_atomically(target, **{**{name: shard[name] for name in shard.files}, **fields})


@pytest.fixture
def broken(encoded: Path, tmp_path: Path) -> Path:
    """A folder of latents whose only shard is there to be broken."""
    changed(encoded / "grey.npz", tmp_path / "grey.npz")
    changed(encoded / "walks-0000.npz", tmp_path / "walks-0000.npz")
    return tmp_path


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no encoded walks in .*expected walks-\*\.npz; got none"):
        Sequences(tmp_path)
    with pytest.raises(InputError, match="no walks in"):
        load_frames(tmp_path, 3)


def test_own_walks_of_no_shard_are_named(encoded: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no own walks in .*expected files named as in"):
        Sequences(encoded, rolled=tmp_path)


@pytest.mark.parametrize("keep", (0, 100, 20_000, -30), ids=("empty", "stub", "half", "no end"))
def test_a_truncated_shard_is_named(broken: Path, keep: int) -> None:
    path = broken / "walks-0000.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"walks-0000\.npz cannot be read.*expected an \.npz file"):
        Sequences(broken)


def test_a_shard_with_a_flipped_byte_is_named(broken: Path) -> None:
    path = broken / "walks-0000.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"walks-0000\.npz cannot be read.*CRC"):
        Sequences(broken)


def test_a_shard_without_a_field_is_named(walks: Path, broken: Path) -> None:
    changed(walks / "walks-0000.npz", broken / "walks-0000.npz")
    with pytest.raises(InputError, match=r"expected an \.npz file with latents, stills.*KeyError"):
        Sequences(broken)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    (
        ("latents", np.zeros((3, 9, 8, 12, 20)), r"latents in .*expected \[3, 9, 16, h, w\]"),
        ("stills", np.zeros((3, 9, 16, 12, 19)), r"stills in .*got \[3, 9, 16, 12, 19\]"),
        ("rel", np.zeros((3, 9, 3, 4)), r"rel in .*expected \[3, 9, 4, 4\]; got \[3, 9, 3, 4\]"),
        ("scene", np.zeros((3, 8)), r"scene in .*expected \[3, 9\]; got \[3, 8\]"),
        ("from_view", np.zeros(2), r"from_view in .*expected \[3\]; got \[2\]"),
    ),
)
def test_a_wrong_shape_is_named(broken: Path, field: str, value: np.ndarray, message: str) -> None:
    path = broken / "walks-0000.npz"
    changed(path, path, **{field: value})
    with pytest.raises(ShapeError, match=message):
        Sequences(broken)


def test_numbers_that_are_none_are_named(broken: Path) -> None:
    path = broken / "walks-0000.npz"
    with np.load(path) as shard:
        latents = shard["latents"].copy()
    latents[1, 2, 3, 4, 5:7] = np.nan, np.inf
    changed(path, path, latents=latents)
    with pytest.raises(InputError, match=r"latents in .*expected finite numbers; got 2"):
        Sequences(broken)


def test_frames_and_poses_that_do_not_fit_are_named(walks: Path, tmp_path: Path) -> None:
    path = tmp_path / "walks-0000.npz"
    changed(walks / "walks-0000.npz", path, frames=np.zeros((3, 32, 16, 16, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"frames per walk.*expected 33 for 9 poses; got 32"):
        encode_shard(autoencoder(), path, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_latents_of_two_autoencoders_are_refused(
    walks: Path, broken: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other, source = autoencoder(seed=9), walks / "walks-0000.npz"
    with pytest.raises(CheckpointError, match=r"two autoencoders.*--vae"):
        write_grey(other, broken)
    encode_shard(other, source, broken / "walks-0001.npz")
    with pytest.raises(CheckpointError, match=r"two autoencoders.*walks-0000.*got .*walks-0001"):
        Sequences(broken)
    (broken / "walks-0000.npz").unlink()
    with pytest.raises(CheckpointError, match=r"two autoencoders.*grey"):
        Sequences(broken)
    own = tmp_path_factory.mktemp("own")
    rolled = np.zeros((3, 9, 16, 12, 20), np.float16)
    name = np.array(shards.encoder_print(autoencoder().state_dict()))
    write_grey(other, tmp_path_factory.mktemp("grey"))
    write_atomically(own / "walks-0001.npz", rolled=rolled, encoder_print=name)
    with pytest.raises(CheckpointError, match=r"two autoencoders"):
        Sequences(broken, rolled=own)


def test_a_run_goes_on_with_its_own_latents_only(encoded: Path, tmp_path: Path) -> None:
    path, encoder = tmp_path / "dit.pt", Sequences(encoded).encoder
    assert encoder == shards.encoder_print(autoencoder().state_dict())
    dit_trainer(path, encoder=encoder).save()
    assert dit_trainer(path, encoder=encoder).encoder == encoder
    with pytest.raises(CheckpointError, match=rf"two autoencoders.*{encoder}.*got 0123"):
        dit_trainer(path, encoder="0123")
    assert dit_trainer(path).encoder == encoder, "files that do not say are taken as they are"


def test_weights_of_two_autoencoders_are_not_packed_together(encoded: Path, tmp_path: Path) -> None:
    vae = {"ema": autoencoder().state_dict()}
    same_encoder(vae, {"encoder_print": Sequences(encoded).encoder})
    same_encoder(vae, {})
    with pytest.raises(CheckpointError, match="two autoencoders"):
        same_encoder(vae, {"encoder_print": "0123"})


def test_files_that_do_not_say_who_made_them_give_one_warning(broken: Path) -> None:
    for path in broken.glob("*.npz"):
        with np.load(path) as shard:
            rest = {name: shard[name] for name in shard.files if not name.endswith("_prints")}
        rest.pop("encoder_print")
        write_atomically(path, **rest)
    with pytest.warns(UserWarning, match="2 files do not say") as seen:
        assert Sequences(broken).encoder is None
    assert len(seen) == 1


def test_the_encoder_names_its_latents_and_the_decoder_does_not() -> None:
    vae = autoencoder()
    name = shards.encoder_print(vae.state_dict())
    with torch.no_grad():
        vae.dec_out.weight.add_(1.0)
    assert shards.encoder_print(vae.state_dict()) == name
    with torch.no_grad():
        vae.enc_out.weight[0, 0, 0, 0] += 1e-3
    assert shards.encoder_print(vae.state_dict()) != name


def test_walks_through_other_scenes_are_refused(broken: Path) -> None:
    path, today = broken / "walks-0000.npz", shards.scene_prints()
    assert list(make_shard(0, "test", walks=1, latents=2)["scene_prints"]) == today
    assert len(set(today)) == len(scenes()), "worlds that look alike"
    changed(path, path, scene_prints=np.array(today[:3]))
    Sequences(broken)  # worlds added since then change nothing
    changed(path, path, scene_prints=np.array([today[0], "0123", *today[2:]]))
    with pytest.raises(InputError, match=rf"shows another '{scenes()[1].name}'.*got 0123"):
        Sequences(broken)
    changed(path, path, scene_prints=np.array([*today, "0123"]))
    with pytest.raises(InputError, match="more worlds"):
        Sequences(broken)
