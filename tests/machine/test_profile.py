"""A profile is found by what it is for, refused where it is none, and gives a training its choices."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from segdist.config import ConfigError, NetConfig, RuntimeConfig, TrainConfig, TrainingConfig, TuneConfig
from segdist.machine import start as start_module
from segdist.machine.choices import default_choices, find_basis, find_inference
from segdist.machine.profile import (
    Choices,
    Profile,
    Work,
    profile_key,
    profile_path,
    profiles_folder,
    read_profile,
    write_profile,
)
from segdist.machine.start import MARK, needs_restart, prepare_start
from segdist.run.folder import RunFolder
from segdist.system.cpu import Cpu, read_cpu
from segdist.system.ranks import Ranks

AVX2 = Cpu("old", frozenset({"avx2", "fma"}))
AVX512 = Cpu("wide", AVX2.flags | {"avx512f"})
BF16 = Cpu("new", AVX512.flags | {"avx512_bf16"})
UNET, HRNET = NetConfig(width=32), NetConfig(model="hrnetv2_w18")
WORK = Work.of(UNET, "64x128", 2)
CHOICES = Choices("channels_last", allocator="glibc", wait="active", ranks=1, bucket_mb=5)


def written(folder, cpu=AVX2, cores=2, work=WORK, choices=CHOICES):
    key = profile_key(cpu, cores, work)
    path = profile_path(folder, key)
    write_profile(path, Profile(key, choices, 1.5))
    return path


def test_a_profile_comes_back_as_it_was(tmp_path):
    path = written(tmp_path)
    assert path.name.startswith("unet-32_64x128_b2_2c_")
    assert read_profile(path).choices == CHOICES


def test_another_cpu_core_net_crop_batch_or_version_has_another_file(tmp_path):
    paths = {
        profile_path(tmp_path, profile_key(AVX2, 2, WORK)),
        profile_path(tmp_path, profile_key(AVX512, 2, WORK)),
        profile_path(tmp_path, profile_key(AVX2, 4, WORK)),
        profile_path(tmp_path, profile_key(AVX2, 2, Work.of(HRNET, "64x128", 2))),
        profile_path(tmp_path, profile_key(AVX2, 2, Work.of(UNET, "128x128", 2))),
        profile_path(tmp_path, profile_key(AVX2, 2, Work.of(UNET, "64x128", 4))),
        profile_path(tmp_path, {**profile_key(AVX2, 2, WORK), "versions": {"torch": "9"}}),
    }
    assert len(paths) == 7


def test_hrnets_width_is_in_its_name_alone():
    assert Work.of(NetConfig(model="hrnetv2_w18", width=16), "1x1", 1) == Work.of(
        NetConfig(model="hrnetv2_w18", width=64), "1x1", 1
    )


def test_profiles_are_in_the_users_cache_unless_a_folder_is_named():
    assert profiles_folder("", {"HOME": "/home/a"}) == Path("/home/a/.cache/segdist/machine")
    assert profiles_folder("", {"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}) == Path("/c/segdist/machine")
    assert profiles_folder("/shared/p", {}) == Path("/shared/p")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: "{", "cannot be read as a profile"),
        (lambda v: json.dumps([1]), "is no profile of this release"),
        (lambda v: json.dumps({**v, "schema": 99}), "is no profile of this release"),
        (
            lambda v: json.dumps({**v, "choices": {**v["choices"], "allocator": "mine"}}),
            "allocator 'mine': must be one",
        ),
        (lambda v: json.dumps({**v, "choices": {**v["choices"], "ranks": -1}}), "ranks -1: must be a whole number"),
        (lambda v: json.dumps({**v, "choices": {"colour": 1}}), "is not whole"),
        (lambda v: json.dumps({k: v[k] for k in ("schema", "choices")}), "is not whole"),
    ],
)
def test_what_is_no_profile_is_refused_with_what_to_do(tmp_path, change, message):
    path = written(tmp_path)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ConfigError, match=rf"{path}: {message}.*or --tuned off"):
        read_profile(path)


@pytest.mark.parametrize(
    ("net", "cpu", "ipex", "expected"),
    [
        (UNET, AVX2, True, Choices("contiguous")),
        (HRNET, AVX2, True, Choices("contiguous")),
        (UNET, AVX512, True, Choices("contiguous")),
        (HRNET, AVX512, True, Choices("channels_last")),
        (UNET, BF16, True, Choices("contiguous", "bf16", True)),
        (HRNET, BF16, False, Choices("channels_last", "bf16", False)),
    ],
)
def test_the_default_is_by_net_and_cpu(net, cpu, ipex, expected):
    assert default_choices(net, cpu, ipex) == expected


def test_a_basis_is_the_profile_of_this_work_else_the_default_that_names_tune(tmp_path):
    runtime = RuntimeConfig(profiles=str(tmp_path))
    basis = find_basis(runtime, UNET, AVX2, 2, WORK, False)
    assert basis.choices == Choices("contiguous")
    assert basis.source.endswith("python -m segdist.launch tune measures what is fastest on this node")
    path = written(tmp_path)
    assert find_basis(runtime, UNET, AVX2, 2, WORK, False).choices == CHOICES
    assert find_basis(runtime, UNET, AVX2, 3, WORK, False).choices == Choices("contiguous")
    off = dataclasses.replace(runtime, tuned="off")
    assert find_basis(off, UNET, AVX2, 2, WORK, False).choices == Choices("contiguous")
    named = RuntimeConfig(tuned=str(path))
    assert find_basis(named, UNET, AVX2, 99, WORK, False).choices == CHOICES
    with pytest.raises(ConfigError, match="cannot be read as a profile"):
        find_basis(RuntimeConfig(tuned="missing.json"), UNET, AVX2, 2, WORK, False)


def test_tuned_takes_two_words_and_json_files_alone():
    with pytest.raises(ConfigError, match=r"--tuned on: must be auto, off or a profile's \.json file"):
        RuntimeConfig(tuned="on")


# How a rank starts -----------------------------------------------------------------------------------------------


@pytest.fixture
def train_config(tmp_path):
    training = TrainingConfig(batch=2, crop="64x128")
    return TrainConfig(
        str(tmp_path / "run"), net=UNET, training=training, runtime=RuntimeConfig(profiles=str(tmp_path / "profiles"))
    )


def start_of(config, environ=None, ranks=None):
    step = RunFolder(config.run).step_of(config)
    return prepare_start(config, ranks or Ranks(), step, environ or {})


def tuned_here(config, **choices):
    """A profile of this very machine."""
    cores = len(start_module.physical_cores(os.sched_getaffinity(0)))
    folder = Path(config.runtime.profiles)
    return written(folder, read_cpu(), cores, WORK, dataclasses.replace(CHOICES, **choices))


def test_a_training_takes_the_nodes_profile_and_the_user_overrides_it(train_config):
    path = tuned_here(train_config)
    found = start_of(train_config)
    assert found.choices == CHOICES
    assert found.is_measured
    assert path.name in found.source
    asked = dataclasses.replace(
        train_config.runtime, memory_format="contiguous", wait_policy="passive", allocator="tuned"
    )
    found = start_of(dataclasses.replace(train_config, runtime=asked))
    assert (found.choices.memory_format, found.choices.wait, found.choices.allocator) == (
        *("contiguous", "passive"),
        "tuned",
    )
    assert found.choices.bucket_mb == 5


def test_another_number_of_ranks_than_was_fastest_is_said(train_config):
    tuned_here(train_config, ranks=2)
    (note,) = start_of(train_config).notes
    assert "2 ranks on a node were measured to be fastest, and there are 1; --ranks-per-node 2" in note


def test_a_resumed_training_takes_what_its_first_start_took(train_config):
    step = RunFolder(train_config.run).step("train")
    step.checkpoints.mkdir(parents=True)
    (step.checkpoints / "last.pt").write_bytes(b"")
    first = Choices("channels_last", allocator="glibc", wait="passive", bucket_mb=7)
    step.choices_json.write_text(json.dumps({"choices": dataclasses.asdict(first), "source": "then"}))
    tuned_here(train_config)
    found = start_of(train_config)
    assert (found.choices, found.source, found.notes) == (first, "as the run's first start", ())
    afresh = dataclasses.replace(train_config, overwrite=True)
    assert start_of(afresh).choices == CHOICES


def test_what_the_new_node_cannot_is_said_and_left_out(train_config, monkeypatch):
    step = RunFolder(train_config.run).step("train")
    step.checkpoints.mkdir(parents=True)
    (step.checkpoints / "last.pt").write_bytes(b"")
    first = Choices("contiguous", "bf16", True, allocator="jemalloc")
    step.choices_json.write_text(json.dumps({"choices": dataclasses.asdict(first), "source": "then"}))
    monkeypatch.setattr(start_module, "read_cpu", lambda: AVX2)
    monkeypatch.setattr(start_module, "choose_allocator", lambda wanted, environ, known: _tuned(known))
    found = start_of(train_config)
    assert (found.choices.precision, found.choices.ipex, found.choices.allocator) == ("fp32", False, "tuned")
    assert any(note.startswith("precision fp32: AVX2 has no bf16") for note in found.notes)
    assert "precision was bf16 at the run's first start and is fp32" in found.notes
    assert "allocator tuned: jemalloc was measured" in " ".join(found.notes)


def _tuned(known):
    from segdist.system.allocator import Allocator

    return Allocator("tuned", f"{known} was measured to be faster, but is not installed here")


def test_an_allocator_that_is_not_installed_is_a_config_error(train_config, monkeypatch):
    def missing(wanted, environ, known):
        raise LookupError("--allocator jemalloc: its library is not installed")

    monkeypatch.setattr(start_module, "choose_allocator", missing)
    with pytest.raises(ConfigError, match="--allocator jemalloc: its library is not installed"):
        start_of(train_config)


def test_a_process_is_started_anew_once_and_its_children_decide_for_themselves(tmp_path):
    config = TuneConfig(str(tmp_path), runtime=RuntimeConfig(allocator="tuned"))
    found = start_of(config)
    variables = needs_restart(found, {})
    assert variables[MARK] == f"{os.getpid()}:tuned:asked for"
    assert needs_restart(start_of(config, variables), variables) == {}
    assert start_of(config, variables).allocator.reason == "asked for"
    of_parent = {**variables, MARK: "1:tuned:asked for"}
    assert needs_restart(start_of(config, of_parent), {}) != {}


def test_inference_takes_the_newest_profile_of_the_net_whatever_its_crop(tmp_path):
    runtime = RuntimeConfig(profiles=str(tmp_path))
    assert find_inference(runtime, AVX2, 2, Work.of(UNET, "", 0)) == ("channels_last", False, "the default")
    for crop, moment, layout in (("64x128", "2026-01-01", "contiguous"), ("32x64", "2026-01-02", "channels_last")):
        key = profile_key(AVX2, 2, Work.of(UNET, crop, 2))
        profile = Profile(key, CHOICES, 1.0, inference=layout, inference_traced=True, measured_at=moment)
        write_profile(profile_path(tmp_path, key), profile)
    (tmp_path / "foreign.json").write_text("{}")
    name, traced, why = find_inference(runtime, AVX2, 2, Work.of(UNET, "", 0))
    assert (name, traced) == ("channels_last", True)
    assert why.startswith("measured on this kind of node (unet-32_32x64_b2")
    assert find_inference(runtime, AVX512, 2, Work.of(UNET, "", 0))[2] == "the default"
    assert find_inference(runtime, AVX2, 2, Work.of(HRNET, "", 0))[2] == "the default"
    asked = RuntimeConfig(memory_format="contiguous", profiles=str(tmp_path))
    assert find_inference(asked, AVX2, 2, Work.of(UNET, "", 0)) == ("contiguous", False, "asked for")
    assert (
        find_inference(RuntimeConfig(tuned="off", profiles=str(tmp_path)), AVX2, 2, Work.of(UNET, "", 0))[2]
        == "the default"
    )
