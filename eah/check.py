"""Check which layers of a model EAH can patch, and that patching and undoing work.

    python -m eah check MODEL_FOLDER [--layers 1] [--preset paper] [--random]

The model is loaded, or built with random weights if the folder has only a config. Needs neither
pictures nor a processor: the prompt is random embeddings, some of which are image tokens.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eah.errors import EAHError, nearest
from eah.exit_status import finish
from eah.settings import PRESETS, EAHConfig

if TYPE_CHECKING:
    import torch

    from eah.handle import LayerReport
    from eah.method import Choice

PROMPT_TOKENS: Final = 96
IMAGE: Final = (8, 80)
WEIGHTS: Final = ("*.safetensors", "*.bin")
FAILED: Final = 1
LONGEST: Final = 500  # characters of a name or reason that are shown


@dataclass(frozen=True, slots=True)
class Trial:
    """What EAH did on a random prompt.

    Attributes:
        reports: What the target layers found.
        apart: Largest difference between two heads that apply the shared map to the same values,
            relative to the largest output; None if no head was shared.
        is_undone: Whether disabling restored the outputs bitwise.
        plain_s, eah_s: Seconds of a prefill without and with EAH.
    """

    reports: list[LayerReport]
    apart: float | None
    is_undone: bool
    plain_s: float
    eah_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if a check fails, 2 if no check could run."""
    parser = argparse.ArgumentParser(
        prog="eah check", description="Check which layers of a model EAH can patch, and try it."
    )
    parser.add_argument("model", help="folder of a model in transformers' format, or a hub id")
    parser.add_argument(
        "--layers", type=int, nargs="+", help="layers to try (default: the preset's)"
    )
    parser.add_argument("--preset", default="paper", help=f"{', '.join(PRESETS)} (default: paper)")
    parser.add_argument(
        "--random", action="store_true", help="use random weights, built from the config"
    )
    return finish(
        "eah check",
        lambda: _check(parser.parse_args(arguments)),
        sentence_of=_sentence_of,
        interrupted="nothing was changed",
    )


def _check(given: argparse.Namespace) -> int:
    """Print the results for a model and return the exit status."""
    config = _config(given.preset, given.layers)
    model = load(given.model, random=given.random)
    failures = 0
    for line, is_failure in describe(model, config):
        print(line)
        failures += is_failure
    return FAILED if failures else 0


def _sentence_of(error: Exception) -> str | None:
    if isinstance(error, (EAHError, ValueError, ImportError)):
        return " ".join(str(error).split())
    return None


def _config(preset: str, layers: list[int] | None) -> EAHConfig:
    if preset not in PRESETS:
        raise EAHError(f"--preset {preset!r} is unknown: {nearest(preset, PRESETS)}")
    changes: dict[str, Any] = {} if layers is None else {"layers": tuple(layers)}
    if PRESETS[preset].get("image_span"):
        changes["image_span"] = IMAGE
    return EAHConfig.preset(preset, **changes)


def load(name: str, *, random: bool = False) -> Any:
    """Load a model, or build one with random weights if there are none.

    Args:
        name: Folder or hub id.
        random: Build from the config alone.
    Raises:
        EAHError: If it can't be loaded, or lacks weights of the model that its config names.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    folder = Path(name)
    if not name.strip():
        raise EAHError("the model's name is empty (an unset shell variable?); name a folder")
    if folder.exists() and not (folder / "config.json").is_file():
        raise EAHError(f"{name} has no config.json; give a folder in transformers' format")
    with _loading(name):
        config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)
    is_vlm = type(config) in AutoModelForImageTextToText._model_mapping
    auto: Any = AutoModelForImageTextToText if is_vlm else AutoModelForCausalLM
    if random or (folder.is_dir() and not any(list(folder.glob(kind)) for kind in WEIGHTS)):
        torch.manual_seed(0)
        with _loading(name):
            return auto.from_config(config).eval()
    with _loading(name):
        model, found = auto.from_pretrained(name, dtype="auto", output_loading_info=True)
    if missing := sorted(map(str, found["missing_keys"])):
        raise EAHError(
            f"{name} lacks {len(missing)} weights of the model that its config names, {missing[0]} "
            "among them; its files are of different models, or some are missing: copy it again"
        )
    return model.eval()


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn any error of transformers about a model's files into one sentence.

    transformers does not document which errors it raises, so all are caught. Use this around calls
    of transformers only.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
        if "weights_only" in reason:  # torch continues with advice to run the file's code
            reason = reason.partition(". ")[0]
        if isinstance(error, OSError) and not Path(name).exists():
            raise EAHError(
                f"{name[:LONGEST]} is not a folder, and no model of that name could be loaded: "
                f"{reason}"
            ) from error
        raise EAHError(
            f"{name} can't be loaded ({reason}); check its files, or copy it again"
        ) from error


def describe(model: Any, config: EAHConfig) -> Iterator[tuple[str, bool]]:
    """Yield lines about a model, and whether each reports a failed check."""
    from eah.find import (
        attention_modules,
        listed_layers,
        patchable_layers,
        placeholder_ids,
    )
    from eah.kernels import own_config

    modules = attention_modules(model)
    usable, reasons = patchable_layers(model)
    kernel = own_config(next(iter(modules.values())))._attn_implementation
    yield f"model: {type(model).__name__}, attention {kernel}", False
    yield f"layers that can be patched: {listed_layers(usable)}", not usable
    for reason in dict.fromkeys(reasons.values()):
        layers = listed_layers(layer for layer in reasons if reasons[layer] == reason)
        yield f"layers that can't be: {layers}: {reason}", False
    ids = placeholder_ids(model)
    named = [f"{kind} {', '.join(map(str, some))}" for kind, some in ids.items() if some]
    source = f"placeholder tokens in input_ids ({'; '.join(named)})"
    unknown = "no placeholder in the config"
    embeddings = "embeddings that match no row of the embedding table"
    yield f"image tokens: {source if named else unknown}; {embeddings}", False
    if not usable:
        return
    trial = try_out(model, config)
    start, stop = IMAGE
    yield f"random prompt: {PROMPT_TOKENS} tokens, {stop - start} of them image tokens", False
    for report in trial.reports:
        head = "no head" if report.head[0] is None else f"head {report.head[0]}"
        counts = f"sinks per head {min(report.counts[0])} to {max(report.counts[0])}"
        yield f"  layer {report.layer}: {head}; {counts}{_saturation(report)}", False
    if trial.apart is None:
        yield "  heads have the same map: not tried, no head was chosen", False
    else:
        same = trial.apart <= 1e-2
        yield (
            f"  heads have the same map: {_yes_no(same)} (largest difference {trial.apart:.0e})",
            not same,
        )
    yield f"  outputs bitwise restored: {_yes_no(trial.is_undone)}", not trial.is_undone
    yield f"  prefill: {trial.plain_s:.3f} s plain, {trial.eah_s:.3f} s with EAH", False


def try_out(model: Any, config: EAHConfig) -> Trial:
    """Run a random prompt without, with and again without EAH."""
    import torch

    from eah.context import image_tokens
    from eah.method import share_map
    from eah.patch import enabled

    table = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    scale = float(table.detach().float().std())
    noise = torch.randn(1, PROMPT_TOKENS, table.shape[1], generator=generator) * scale
    embeds = noise.to(table.device, table.dtype)

    def run() -> tuple[torch.Tensor, float]:
        begin = time.perf_counter()
        with torch.no_grad():
            logits = model(inputs_embeds=embeds, use_cache=False).logits
        return logits, time.perf_counter() - begin

    apart: list[float] = []

    def apply_and_measure(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, choice: Choice, attend: Any
    ) -> torch.Tensor:
        def attend_same(query: torch.Tensor, key: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = attend(query, key, value[:, :1].expand_as(value))
            return output

        if int(choice.head[0]) >= 0:
            same = share_map(query, key, value, choice, attend_same).float()  # (B, Q, H, D)
            largest = float(same.abs().max())
            apart.append(float((same - same[:, :, :1]).abs().max()) / max(largest, 1e-12))
        return share_map(query, key, value, choice, attend)

    run()  # warm up
    before, plain_s = run()
    values = {name: getattr(config, name) for name in ("layers", "rule", "image_span")}
    with enabled(model, EAHConfig(**values, apply=apply_and_measure)), image_tokens(model, IMAGE):
        run()
    with enabled(model, config) as handle, image_tokens(model, IMAGE):
        run()
        _, eah_s = run()
        reports = handle.report()
    after, _ = run()
    is_undone = torch.equal(before, after)
    return Trial(reports, max(apart) if apart else None, is_undone, plain_s, eah_s)


def _saturation(report: LayerReport) -> str:
    if report.saturated[0]:
        return "; saturated: every image token is a sink in every head, so the choice says nothing"
    return "; not saturated"


def _yes_no(value: bool) -> str:
    return "yes" if value else "NO"


if __name__ == "__main__":
    sys.exit(main())
