"""What "auto" becomes on each instruction set, what it says, and bf16 training itself where the CPU has it."""

import subprocess
import sys

import pytest
import torch

from segdist.config import ConfigError
from segdist.models.unet import UNet
from segdist.runtime import ipex as ipex_module
from segdist.runtime.ipex import Ipex, load_ipex
from segdist.runtime.precision import choose_precision
from segdist.system.cpu import Cpu, read_cpu

pytestmark = pytest.mark.slow  # trains, or starts many processes

AVX2 = Cpu("an older one", frozenset({"avx2", "fma"}))
SKYLAKE = Cpu("Skylake", frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}))
COOPER_LAKE = Cpu("Cooper Lake", SKYLAKE.flags | {"avx512_vnni", "avx512_bf16"})
SAPPHIRE_RAPIDS = Cpu("Sapphire Rapids", COOPER_LAKE.flags | {"amx_tile", "amx_int8", "amx_bf16"})


class _Onednn:
    def __init__(self, has_bf16):
        self.onednn_has_bf16_support = lambda: has_bf16


def extension(has_bf16):
    module = type(sys)("intel_extension_for_pytorch")
    module._C = _Onednn(has_bf16)
    return Ipex(module, "2.8.0+cpu")


WITHOUT = Ipex(None, "not installed")


@pytest.mark.parametrize(
    ("cpu", "isa", "bf16", "vnni"),
    [
        (Cpu("none", frozenset()), "baseline", False, False),
        (AVX2, "AVX2", False, False),
        (Cpu("Alder Lake", AVX2.flags | {"avx_vnni"}), "AVX2_VNNI", False, True),
        (SKYLAKE, "AVX512", False, False),
        (COOPER_LAKE, "AVX512_BF16", True, True),
        (SAPPHIRE_RAPIDS, "AMX", True, True),
    ],
)
def test_the_instruction_set_is_named(cpu, isa, bf16, vnni):
    assert (cpu.isa, cpu.has_bf16, cpu.has_vnni) == (isa, bf16, vnni)


def test_the_cpu_is_read_from_proc():
    first = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 fma\n"
    text = first + "\nprocessor\t: 1\nmodel name\t: other\n"
    assert read_cpu(lambda path: text) == Cpu("Intel(R) Xeon(R)", frozenset({"fpu", "avx2", "fma"}), "AuthenticAMD")


@pytest.mark.parametrize(
    ("wanted", "cpu", "ipex", "name", "with_ipex", "reason"),
    [
        ("auto", AVX2, WITHOUT, "fp32", False, "the CPU's AVX2 has no bf16 arithmetic"),
        ("auto", SKYLAKE, WITHOUT, "fp32", False, "the CPU's AVX512 has no bf16 arithmetic"),
        ("auto", COOPER_LAKE, extension(True), "bf16", True, "the CPU has AVX512_BF16; ipex.optimize"),
        ("auto", SAPPHIRE_RAPIDS, extension(True), "bf16", True, "the CPU has AMX; ipex.optimize"),
        ("auto", COOPER_LAKE, WITHOUT, "bf16", False, "the CPU has AVX512_BF16; plain autocast"),
        ("fp32", SAPPHIRE_RAPIDS, WITHOUT, "fp32", False, "asked for"),
        ("fp32", SAPPHIRE_RAPIDS, extension(True), "fp32", True, "asked for; ipex.optimize"),
        ("bf16", COOPER_LAKE, extension(True), "bf16", True, "asked for; ipex.optimize"),
        ("bf16", COOPER_LAKE, extension(False), "bf16", False, "plain autocast"),
        ("bf16", AVX2, extension(False), "bf16", False, "asked for; emulated by plain autocast"),
    ],
)
def test_what_auto_becomes_and_why(wanted, cpu, ipex, name, with_ipex, reason):
    choice = choose_precision(wanted, cpu, ipex)
    assert (choice.name, choice.with_ipex) == (name, with_ipex)
    assert reason in choice.reason


def test_emulated_bf16_is_warned_of_and_nothing_else_is():
    warning = choose_precision("bf16", AVX2, WITHOUT).warning
    assert warning == (
        "--precision bf16 on AVX2: this CPU has no AVX512_BF16 or AMX, so bf16 is emulated and many times slower than "
        "fp32; --precision auto takes fp32 here"
    )
    assert choose_precision("auto", AVX2, WITHOUT).warning is None
    assert choose_precision("bf16", COOPER_LAKE, WITHOUT).warning is None


def train_a_little(precision, ipex):
    torch.manual_seed(0)
    net = UNet(4, 8).to(memory_format=torch.channels_last)
    net, optimizer = precision.prepare(ipex, net, torch.optim.SGD(net.parameters(), 0.05, momentum=0.9))
    images = torch.randn(2, 3, 32, 64).contiguous(memory_format=torch.channels_last)
    truth = torch.randint(0, 4, (2, 32, 64))
    losses = []
    for _ in range(6):
        with precision.autocast():
            logits = net(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return net, losses


def test_plain_autocast_trains_like_fp32():
    fp32 = train_a_little(choose_precision("fp32", AVX2, WITHOUT), WITHOUT)[1]
    net, bf16 = train_a_little(choose_precision("bf16", AVX2, WITHOUT), WITHOUT)
    assert bf16 == pytest.approx(fp32, rel=0.03)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.skipif(not read_cpu().has_bf16, reason="this CPU has no AVX512_BF16 or AMX: bf16 with IPEX cannot run")
def test_bf16_with_ipex_trains_like_fp32_and_gives_its_weights_back_in_fp32():
    ipex = load_ipex("on", read_cpu(), True)
    choice = choose_precision("auto", read_cpu(), ipex)
    assert choice.with_ipex
    fp32 = train_a_little(choose_precision("fp32", read_cpu(), ipex), ipex)[1]
    net, bf16 = train_a_little(choice, ipex)
    assert bf16 == pytest.approx(fp32, rel=0.03)
    assert fp32[-1] < fp32[0]
    assert torch.bfloat16 in {p.dtype for p in net.parameters()}
    weights = net.state_dict()
    assert {t.dtype for name, t in weights.items() if "num_batches" not in name} == {torch.float32}
    UNet(4, 8).load_state_dict(weights)


def test_without_ipex_the_native_path_is_named_and_on_is_refused(monkeypatch):
    monkeypatch.setattr(ipex_module.importlib.util, "find_spec", lambda name: None)
    found = load_ipex("auto", COOPER_LAKE, True)
    assert found.module is None
    assert "not installed: plain PyTorch runs; to have it: python -m pip install" in found.reason
    with pytest.raises(ConfigError, match='--ipex on: .* is not installed; python -m pip install "torch==2.8.0"'):
        load_ipex("on", COOPER_LAKE, True)


def test_ipex_is_left_out_where_it_makes_training_slower_and_says_so():
    assert load_ipex("off", COOPER_LAKE, True) == Ipex(None, "off, as asked for")
    assert load_ipex("auto", COOPER_LAKE, False).reason == "not used: it does not help fp32 training"


def test_importing_ipex_leaves_the_log_readable():
    code = (
        "from segdist.runtime.ipex import load_ipex; from segdist.system.cpu import read_cpu\n"
        "print(load_ipex('on', read_cpu(), True).module is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr == ""
