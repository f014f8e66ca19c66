# SPDX-License-Identifier: Apache-2.0
"""The TIPC chain: train, evaluate, export and infer as a text file says, each step a process with its log.

Called by test_train_inference_python.sh. Unlike the runner that it is compatible with, it ends with status 1 when any
step failed, and it runs on machines without a GPU.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from compare_results import stored_path
from tipc_config import MODES, TipcConfig, TipcError
from tipc_process import run_script, run_step

YELLOW, RESET = "\033[33m", "\033[0m"


def visible_gpus() -> int:
    """How many NVIDIA GPUs this machine shows; asked of the driver, so that paddle need not be imported."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return 0
    return listing.stdout.count("GPU ") if listing.returncode == 0 else 0


class Runner:
    """Runs the steps of one file in one mode."""

    def __init__(self, config: TipcConfig, mode: str, out: Path):
        self.config, self.mode, self.out = config, mode, out
        self.failed = self.passed = 0
        out.mkdir(parents=True, exist_ok=True)
        self.status_log = out / "results_python.log"
        self.status_log.write_text(f"------------------------ {mode} ------------------------\n")
        self.results: list[Path] = []

    def step(self, command: list[str], log: Path, gpu: str = "-1") -> bool:
        """Runs one command; its output goes to `log`, a status line to the screen and to results_python.log."""
        env = dict(os.environ)
        if gpu != "-1":
            env["CUDA_VISIBLE_DEVICES"] = gpu
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as file:
            code = run_step(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        outcome = "successfully" if code == 0 else "failed"
        line = f" Run {outcome} with command - {self.config.model_name} - {shlex.join(command)} - {log} "
        if code == 0:
            self.passed += 1
        else:
            self.failed += 1
            tail = log.read_text(errors="replace").splitlines()[-15:]
            print("\n".join(f"    {text}" for text in tail))
        print(f"{YELLOW}{line}{RESET}", flush=True)
        with open(self.status_log, "a") as file:
            file.write(f"{YELLOW}{line}{RESET}\n")
        return code == 0

    # ------------------------------------------------------------------------------------------ training

    def gpu_list(self) -> list[str]:
        """Line 4, or `-1` (CPU) where the machine lacks what the line asks for."""
        chosen = []
        for gpu in self.config.line(4).choices:
            wanted = 0 if gpu in ("", "-1") else len(gpu.split(";")[-1].split(","))
            if wanted > visible_gpus():
                print(f"gpu_list entry {gpu}: this machine shows {visible_gpus()} GPUs, running on the CPU instead")
                gpu = "-1"
            if (gpu or "-1") not in chosen:
                chosen.append(gpu or "-1")
        return chosen

    @staticmethod
    def launch(gpu: str) -> list[str]:
        """What starts one process per card; nothing for one card or the CPU."""
        if len(gpu) <= 2:
            return []
        launch = ["-m", "paddle.distributed.launch", f"--devices={gpu.split(';')[-1]}"]
        return launch + [f"--ips={gpu.split(';')[0]}"] if ";" in gpu else launch

    def train_all(self) -> None:
        """Every combination of device, precision and trainer, with the steps that follow each training."""
        config = self.config
        device_values = config.line(5).choices
        for position, gpu in enumerate(self.gpu_list()):
            device = config.line(5).flag("cpu" if gpu == "-1" else device_values[min(position, len(device_values) - 1)])
            for precision in config.line(6).choices:
                for trainer in config.line(15).choices:
                    self.train_one(gpu, device, precision, trainer)

    def _commands_of(self, trainer: str) -> tuple[str | None, str | None]:
        """Training and export command of a trainer."""
        numbers = {"norm": (16, 30), "pact": (17, 31), "fpgm": (18, 32), "distill": (19, 33)}
        for train, export in ((16, 30), (17, 31), (18, 32), (19, 33), (20, 34), (21, 35)):
            numbers.setdefault(self.config.line(train).key, (train, export))
        numbers.pop("null", None)
        if trainer not in numbers:
            raise TipcError(f"line 15: there is no trainer {trainer}; the file has {', '.join(numbers)}")
        train, export = numbers[trainer]
        return self.config.line(train).command, self.config.line(export).command

    def train_one(self, gpu: str, device: list[str], precision: str, trainer: str) -> None:
        """Trains, evaluates, exports and infers one combination."""
        config = self.config
        train, export = self._commands_of(trainer)
        if train is None:
            return
        name = f"{trainer}_gpus_{gpu}_autocast_{precision}"
        folder = self.out / name
        nodes = len(gpu.split(";")[0].split(",")) if ";" in gpu else 1
        command = [config.python, *self.launch(gpu), *shlex.split(train), *device]
        command += config.line(8).flag(str(folder)) + config.line(7).flag(config.line(7).for_mode(self.mode))
        command += config.line(10).flag() + config.line(9).flag(config.line(9).for_mode(self.mode))
        command += config.line(6).flag(precision) + config.line(13).flag()
        if not self.step(command, self.out / f"{name}_nodes_{nodes}.log", gpu):
            return
        weights = self._weights(folder)
        evaluation = config.line(24).command
        if evaluation:
            command = [config.python, *shlex.split(evaluation), *config.line(10).flag(str(weights)), *device]
            self.step(command + config.line(25).flag(), self.out / f"{name}_nodes_{nodes}_eval.log", gpu)
        if export:
            command = [config.python, *shlex.split(export)]
            command += config.line(29).flag(str(weights)) + config.line(28).flag(str(folder))
            if self.step(command, self.out / f"{name}_nodes_{nodes}_export.log", gpu):
                quantised = trainer in ("pact", config.line(17).key)
                self.infer_all(folder, config.line(12).value, quantised=quantised, gpu=gpu)

    def _weights(self, folder: Path) -> Path:
        """The weights of a training: line 11, else those of the newest iter_N."""
        best = folder / self.config.line(11).value
        if best.exists():
            return best
        found = sorted(folder.glob("iter_*/model.pdparams"), key=lambda path: path.stat().st_mtime)
        return found[-1] if found else best

    # ------------------------------------------------------------------------------------------ inference

    def infer_all(self, folder: Path, images: str, *, quantised: bool, gpu: str) -> None:
        """Inference of one exported model with every device and setting of lines 41-46."""
        for device in self.config.line(41).choices:
            if device == "gpu" and not visible_gpus():
                print("inference on gpu left out: this machine shows no GPU")
            elif device == "gpu":
                self._infer_gpu(folder, images, quantised, gpu)
            else:
                self._infer_cpu(folder, images, quantised, gpu)

    def _infer_cpu(self, folder: Path, images: str, quantised: bool, gpu: str) -> None:
        line = self.config.line
        for mkldnn in line(42).choices:
            for threads in line(43).choices:
                for batch in line(44).choices:
                    for precision in line(46).choices:
                        if precision == "fp16" and mkldnn == "False" or (precision == "int8") != quantised:
                            continue
                        setting = f"usemkldnn_{mkldnn}_threads_{threads}_precision_{precision}_batchsize_{batch}"
                        flags = line(41).flag("cpu") + line(42).flag(mkldnn) + line(43).flag(threads)
                        flags += line(44).flag(batch) + line(46).flag(precision)
                        log = self.out / f"python_infer_cpu_gpu_{gpu}_{setting}.log"
                        # The gpu entry is part of the name, so that several trainings do not overwrite each other.
                        self._infer(folder, images, flags, log, log.with_name(f"{log.stem}_results"), gpu="-1")

    def _infer_gpu(self, folder: Path, images: str, quantised: bool, gpu: str) -> None:
        line = self.config.line
        for trt in line(45).choices:
            for precision in line(46).choices:
                for batch in line(44).choices:
                    if trt == "False" and precision in ("fp16", "int8") or (precision == "int8") != quantised:
                        continue
                    setting = f"usetrt_{trt}_precision_{precision}_batchsize_{batch}"
                    flags = line(41).flag("gpu") + line(45).flag(trt) + line(46).flag(precision) + line(44).flag(batch)
                    log = self.out / f"python_infer_gpu_gpu_{gpu}_{setting}.log"
                    self._infer(folder, images, flags, log, log.with_name(f"{log.stem}_results"), gpu=gpu)

    def _infer(self, folder: Path, images: str, flags: list[str], log: Path, results: Path, gpu: str) -> None:
        config = self.config
        command = [config.python, *shlex.split(config.line(40).value), *flags]
        command += config.line(47).flag(f"{folder}/deploy.yaml") + config.line(48).flag(images)
        command += config.line(50).flag() + config.line(51).flag(str(results)) + config.line(52).flag()
        shutil.rmtree(results, ignore_errors=True)  # pictures of an earlier run must not pass for this one's
        # Stored scores are those of weights that a CPU trained.
        if self.step(command, log, gpu) and results.name.startswith("python_infer_cpu_gpu_-1_"):
            self.results.append(results)

    def compare(self) -> None:
        """Compares what inference on the CPU saved with stored scores, where there are any."""
        stored = stored_path(self.config, self.mode)
        if not self.results:
            return
        if not stored.is_file():
            print(f"{stored}: no stored scores, so results were not compared")
            return
        folders = [str(folder) for folder in dict.fromkeys(self.results)]
        script = str(Path(__file__).with_name("compare_results.py"))
        command = [self.config.python, script, str(self.config.path), self.mode, *folders]
        self.step(command, self.out / "compare_results.log")

    def whole_infer(self) -> None:
        """Export and inference of given weights, lines 37-39."""
        config = self.config
        weights, quantised = config.line(37).choices, config.line(39).choices
        if not len(weights) == len(quantised) == len(config.line(38).choices):
            raise TipcError("lines 37, 38 and 39 (weights, export, quantised): their lists differ in length")
        for number, export in enumerate(config.line(38).choices):
            folder = self.out / f"whole_infer_{number}"
            if export not in ("", "null"):
                command = [config.python, *shlex.split(export), *config.line(29).flag(weights[number])]
                command += config.line(28).flag(str(folder))
                if not self.step(command, self.out / f"whole_infer_{number}_export.log"):
                    continue
            else:
                folder = Path(weights[number]).parent
            self.infer_all(folder, config.line(48).value, quantised=quantised[number] == "True", gpu="-1")


def main(argv: list[str]) -> int:
    """`run_tipc.py CONFIG MODE`; returns 0 when every step succeeded."""
    if len(argv) < 2 or argv[1] not in MODES[:4]:
        print(f"usage: test_train_inference_python.sh CONFIG MODE, MODE one of {', '.join(MODES[:4])}", file=sys.stderr)
        return 2
    try:
        config, mode = TipcConfig(argv[0]), argv[1]
        runner = Runner(config, mode, Path("test_tipc/output") / config.model_name / mode)
        if mode == "whole_infer":
            runner.whole_infer()
        else:
            runner.train_all()
        runner.compare()
    except TipcError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{runner.passed} steps passed, {runner.failed} failed; status lines in {runner.status_log}")
    return 1 if runner.failed or not runner.passed else 0


if __name__ == "__main__":
    run_script(main)
