"""``python -m segdist.tuning.step_rank PLAN REPLIES``: one rank that does training steps when it is told to.

``tune`` and the benchmarks start it. Each line on stdin asks for one thing ("step" or "inference"); rank 0 answers each
with a line of JSON on the descriptor REPLIES. The steps are those of a training, with made-up crops.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.config import NetConfig, RuntimeConfig, TrainingConfig, parse_size
from segdist.machine.profile import Choices
from segdist.machine.start import PLAIN
from segdist.system.affinity import pin_cores
from segdist.system.memory import peak_memory_mb
from segdist.system.ranks import Ranks, detect_ranks

CLASSES = 13
_FORMATS = ("channels_last", "contiguous")


@dataclass(frozen=True)
class StepPlan:
    """What is timed: the net, its crops (HEIGHTxWIDTH), the images of a step over all ranks, and the choices."""

    net: NetConfig
    crop: str
    images: int
    choices: Choices

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> StepPlan:
        """From what :meth:`to_json` wrote."""
        values: Mapping[str, Any] = json.loads(text)
        net = NetConfig(values["net"]["model"], values["net"]["width"])
        return cls(net, values["crop"], values["images"], Choices(**values["choices"]))


class _Healthy:
    """Nothing is written here, so nothing can fail beside the steps."""

    failed = False

    def check(self) -> None:
        return


class StepRank:
    """One rank's steps; torch is imported with it."""

    def __init__(self, plan: StepPlan, ranks: Ranks, cores: Sequence[int]) -> None:
        import torch

        from segdist.models.build import build_net
        from segdist.run.folder import RunFolder
        from segdist.runtime.collectives import Collectives
        from segdist.runtime.ipex import load_ipex
        from segdist.runtime.precision import choose_precision
        from segdist.runtime.rank_context import RankContext
        from segdist.system.cpu import read_cpu
        from segdist.training.ddp import wrap_ddp
        from segdist.training.loss import PixelCrossEntropy
        from segdist.training.optimizer import build_optimizer
        from segdist.training.state import TrainState
        from segdist.training.step import TrainStep

        torch.set_num_threads(len(cores))
        torch.set_num_interop_threads(1)
        torch.manual_seed(0)
        choices, cpu = plan.choices, read_cpu()
        self.plan, self.torch, self._waited = plan, torch, 0.0
        config = TrainingConfig(batch=plan.images, crop=plan.crop, epochs=1, momentum=0.9)
        collectives = Collectives(ranks, "gloo")
        self._time_the_sums(collectives)
        folder = RunFolder(Path(tempfile.gettempdir())).step("tune")
        context = RankContext(ranks, cores, cpu, collectives, folder, RuntimeConfig())
        context.start = dataclasses.replace(PLAIN, choices=choices)
        self.net = build_net(plan.net.model, CLASSES, plan.net.width)
        net: Any = self.net
        net.to(memory_format=context.memory_format)
        ipex = load_ipex("on" if choices.ipex else "off", cpu, choices.precision == "bf16")
        precision = choose_precision(choices.precision, cpu, ipex)
        state = TrainState(net, build_optimizer(net, config), None, collectives, steps_per_epoch=10**6)
        state.net, state.optimizer = precision.prepare(ipex, state.net, state.optimizer)
        state.net.train()
        distributed = wrap_ddp(state.net, context, precision, choices.bucket_mb)
        if choices.compile:
            distributed = torch.compile(distributed, dynamic=False)  # type: ignore[assignment]
        criterion = PixelCrossEntropy(torch.ones(CLASSES), 0.0, 0.0, 1.0)
        self._train_step = TrainStep(state, distributed, criterion, context, precision, config)
        height, width = parse_size(plan.crop)
        own = plan.images // ranks.world
        generator = torch.Generator().manual_seed(ranks.rank)
        self._images = torch.randint(0, 256, (own, height, width, 3), generator=generator).to(torch.uint8)
        self._labels = torch.randint(0, CLASSES, (own, height, width), generator=generator).to(torch.uint8)

    def step(self) -> dict[str, Any]:
        """Do one training step; its seconds, and those it waited for the sums that travel beside the gradients."""
        self._waited = 0.0
        begin = time.perf_counter()
        self._train_step(self._images, self._labels, False, _Healthy())
        self._train_step.state.progress.batch += 1
        return {"seconds": time.perf_counter() - begin, "waited_for_sums": self._waited}

    def _time_the_sums(self, collectives: Any) -> None:
        begin_all_reduce = collectives.begin_all_reduce

        def timed(tensor: Any) -> Any:
            wait = begin_all_reduce(tensor)

            def wait_and_time() -> Any:
                begin = time.perf_counter()
                result = wait()
                self._waited += time.perf_counter() - begin
                return result

            return wait_and_time

        collectives.begin_all_reduce = timed

    def inference(self) -> dict[str, Any]:
        """Seconds of a forward pass of one image in fp32: in each memory format, eager and traced, timed in turn."""
        torch, height_width = self.torch, parse_size(self.plan.crop)
        from segdist.models.build import build_net

        plan = self.plan.net
        weights = build_net(plan.model, CLASSES, plan.width).state_dict()
        nets, inputs = dict[str, Any](), dict[str, Any]()
        for name, layout in zip(_FORMATS, (torch.channels_last, torch.contiguous_format)):
            net = build_net(plan.model, CLASSES, plan.width).eval()
            net.load_state_dict(weights)
            nets[name] = net.to(memory_format=layout)  # type: ignore[call-overload]
            inputs[name] = torch.zeros(1, 3, *height_width).contiguous(memory_format=layout)
            with torch.no_grad():
                traced = torch.jit.freeze(torch.jit.trace(net, inputs[name], check_trace=False))
            nets[f"traced_{name}"], inputs[f"traced_{name}"] = traced, inputs[name]
        seconds: dict[str, list[float]] = {name: [] for name in nets}
        with torch.inference_mode():
            for number in range(8):
                for name, net in nets.items():
                    begin = time.perf_counter()
                    net(inputs[name])
                    seconds[name] += [time.perf_counter() - begin] * (number > 2)
        return {name: statistics.median(values) for name, values in seconds.items()}


def main(argv: Sequence[str]) -> int:
    """Do what stdin says until it ends."""
    plan, replies = StepPlan.from_json(argv[0]), int(argv[1])
    ranks = detect_ranks(os.environ)
    rank = StepRank(plan, ranks, pin_cores(ranks.local_rank, ranks.local_world, 0))
    for line in sys.stdin:
        answer = rank.inference() if line.strip() == "inference" else rank.step()
        if ranks.rank == 0:
            os.write(replies, (json.dumps({**answer, "peak_memory_mb": peak_memory_mb()}) + "\n").encode())
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # torch's own end may abort while another rank is there
