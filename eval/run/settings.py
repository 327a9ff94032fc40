"""Settings of an evaluation: defaults < YAML < flags, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.typed import LARGEST
from eval.files.values import convert
from eval.run.steps import AUTO, check_compile
from models.settings import PARTS

DEFAULT_SEED: Final = 42
MOST_REPEATS: Final = 1000
MOST_WORKERS: Final = 256
MODEL_FLAGS: Final = (
    "checkpoint",
    "protocol",
    "system",
    "device",
    "dtype",
    "quantization",
    "converted",
)
OPERA_FLAGS: Final = ("scale_factor", "threshold", "num_attn_candidates", "penalty_weights")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings that every evaluation command has.

    Attributes:
        model: Name of a model in `configs/`.
        checkpoint: Folder or hub id instead of the config's.
        llm, vision, qformer, projector, qformer_tokenizer: Original files by part, instead of the
            config's.
        converted: Folder that original files are converted to, once; None for one in the cache.
        protocol: Prompt, preprocessing and answer length; None for the config's.
        system: System message, for --model hf; None for the chat template's default.
        method: Arms of the run, in the order of the table; None for baseline and EAH, or for
            baseline, OPERA, and OPERA with EAH if one of OPERA's settings is given.
        sweep: Grids of arms, such as "layers=0,1,2".
        scale_factor, threshold, num_attn_candidates, penalty_weights: OPERA's settings; None for
            the published ones.
        method_settings: Settings of decoding methods, such as "vcd.alpha=0.5".
        data_path: Folder of the pictures.
        device: "cpu", "cuda:N", "auto" (all GPUs); None for the first GPU, else the CPU.
        dtype: Precision; None for the config's.
        quantization: "8bit" or "4bit" weights in the language model; None for neither.
        beam: Number of beams; 1 is greedy.
        sample: Nucleus sampling (top-p 0.9, temperature 1).
        max_new_tokens: Length of an answer; None for the protocol's.
        batch_size: Prompts that are generated together; None for as many as fit into memory.
        prefix_reuse: Whether questions about the same picture reuse its cached prefix.
        compile: When greedy decoding and sampling run captured steps on a GPU: "auto", "never", or
            "always" (steps made by torch.compile).
        num_workers: Processes that read and resize pictures ahead; None for 4 if the model runs on
            a GPU, and 0 on a CPU, which they would slow down.
        skip_unreadable: Leave out the questions about pictures that can't be read.
        limit: Use only the first N questions of each file, or caption only the first N pictures.
        seed: Seed of sampling, of choosing pictures and of building question files.
        repeats: Runs with the seeds 0 to repeats - 1, reported together; 1 for one run with `seed`.
        output_dir: Parent of run folders.
        preset: EAH's preset; None for the config's.
        rule: EAH's rule for sinks and the densest head; None for the preset's.
        layers: EAH's decoder layers, counted from 0.
        head: EAH's head; None for the densest one.
        sink_threshold: EAH's threshold on mean attention.
        min_density: Smallest share of sinks among the image tokens in EAH's densest head.
        receivers: Number of heads that get its map; None for all.
        reference: Arm that the others are compared with; None for the baseline.
        fresh: Set recorded answers of the arms aside and ask again.
        accept_old: Continue with answers of other code.
        dry_run: Print what would be asked, and ask nothing.
        wide: Print all metrics, even if the table is wide.
        json: File for all results.
        overwrite: Allow `json` to replace a file that this command did not write.
    """

    model: str = "llava-1.5"
    checkpoint: str | None = None
    llm: str | None = None
    vision: str | None = None
    qformer: str | None = None
    projector: str | None = None
    qformer_tokenizer: str | None = None
    converted: str | None = None
    protocol: str | None = None
    system: str | None = None
    method: tuple[str, ...] | None = None
    sweep: tuple[str, ...] = ()
    scale_factor: float | None = None
    threshold: int | None = None
    num_attn_candidates: int | None = None
    penalty_weights: float | None = None
    method_settings: tuple[str, ...] = ()
    data_path: Path | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    beam: int = 1
    sample: bool = False
    max_new_tokens: int | None = None
    batch_size: int | None = 8
    prefix_reuse: bool = True
    compile: str = AUTO
    num_workers: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    seed: int = DEFAULT_SEED
    repeats: int = 1
    output_dir: Path = Path("runs")
    preset: str | None = None
    rule: str | None = None
    layers: tuple[int, ...] | None = None
    head: int | None = None
    sink_threshold: float | None = None
    min_density: float | None = None
    receivers: int | None = None
    reference: str | None = None
    fresh: bool = False
    accept_old: bool = False
    dry_run: bool = False
    wide: bool = False
    json: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            EvaluationError: Naming the setting, its value and what is allowed.
        """
        for name in ("beam", "batch_size", "max_new_tokens", "limit", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"{name}={value}, but at least 1 is needed")
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is int and abs(value) >= LARGEST:
                raise EvaluationError(
                    f"{item.name} has {len(str(abs(value)))} digits, but must be below 2**63"
                )
        check_compile(self.compile, "settings")
        if self.repeats > MOST_REPEATS:
            raise EvaluationError(f"repeats={self.repeats}, but at most {MOST_REPEATS} are allowed")
        if self.num_workers is not None and self.num_workers > MOST_WORKERS:
            raise EvaluationError(
                f"num_workers={self.num_workers}, but at most {MOST_WORKERS} are allowed"
            )
        if self.fresh and self.accept_old:
            raise EvaluationError(
                "--fresh sets recorded answers aside and --accept-old keeps them; pass one of them"
            )
        if self.num_workers is not None and self.num_workers < 0:
            raise EvaluationError(f"num_workers={self.num_workers}, but it must be at least 0")

    def model_arguments(self) -> dict[str, Any]:
        """Return the arguments of `models.load` and `models.describe`, except the model's name."""
        parts = {part: value for part in PARTS if (value := getattr(self, part)) is not None}
        return {"parts": parts, **{name: getattr(self, name) for name in MODEL_FLAGS}}

    def pictures_folder(self, example: str = "/data/COCO/val2014") -> Path:
        """Return the folder of the pictures.

        Args:
            example: Such a folder, for the error.
        Raises:
            EvaluationError: If it is not given, or not a folder.
        """
        if self.data_path is None:
            raise EvaluationError(f"no pictures: pass --data-path, such as {example}")
        if not self.data_path.is_dir():
            raise EvaluationError(
                f"--data-path {self.data_path} is not a folder; pass the pictures' folder"
            )
        return self.data_path


def merge(defaults: RunSettings, values: Mapping[str, Any], source: str) -> RunSettings:
    """Return settings with some values replaced.

    Args:
        defaults: The settings to override.
        values: Setting names and values.
        source: Origin of the values, for error messages.
    Raises:
        EvaluationError: If a name is unknown, or a value is empty or not of the setting's kind.
    """
    known = {field.name: field for field in fields(defaults)}
    changes = {}
    for name, value in values.items():
        name = name.replace("-", "_")
        if name not in known:
            raise EvaluationError(f"{source}: setting {name!r} is unknown: {nearest(name, known)}")
        if name == "compile":
            check_compile(value, source)
        changes[name] = convert(name, str(known[name].type), value, source)
        if name in ("model", *PARTS, *MODEL_FLAGS) and str(changes[name]).strip() == "":
            raise EvaluationError(
                f"{source}: --{name.replace('_', '-')} is empty (an unset shell variable?); "
                "name one or leave it out"
            )
    return replace(defaults, **changes)
