"""The arms of a run: with or without EAH, with which decoding method, and with which settings.

An arm is written `baseline`, `eah`, `vcd`, `vcd+eah`, or with settings after an @:
`eah@layers=2,threshold=0.001`, `vcd+eah@alpha=0.5,layers=0-1`. Its recorded name lists the settings
that differ from the model's config and from a method's published settings. So a name is complete,
and an arm has the same name however it was written. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from eah.errors import EAHConfigError, nearest
from eah.settings import EAHConfig
from eval.errors import EvaluationError
from eval.files.answers import BASELINE
from eval.run.arm_settings import (
    ALIASES,
    EAH,
    EAH_SETTINGS,
    ArmDefaults,
    arm_name,
    build_method,
    eah_config,
    method_changes,
    read_eah,
    read_method_flags,
    read_value,
)
from eval.run.settings import OPERA_FLAGS, RunSettings
from models.methods import needed_settings, published_settings, read_methods
from models.settings import model_settings

if TYPE_CHECKING:
    from models.decoding.base import DecodingMethod

OPERA: Final = "opera"
DEFAULT_ARMS: Final = (BASELINE, EAH)
# In the paper's commands, OPERA's flags mean OPERA, and OPERA with EAH.
OPERA_ARMS: Final = (BASELINE, OPERA, f"{OPERA}+{EAH}")
Settings = TypeVar("Settings", bound=RunSettings)
MOST_ARMS: Final = 1000
EAH_FLAGS: Final = ("preset", "rule", "layers", "head", "min_density", "receivers")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to answer the questions of a run.

    Attributes:
        name: Recorded name.
        method: Name of the decoding method; None for transformers' own decoding.
        changes: Settings of the method that differ from the published ones and from `needed`.
        eah: EAH's settings; None without EAH.
        needed: Settings of the method that the model needs instead of the published ones.
    """

    name: str
    method: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    eah: EAHConfig | None = None
    needed: Mapping[str, Any] = field(default_factory=dict)

    def decoding(self) -> DecodingMethod | None:
        """Return the decoding method with its settings; loads torch.

        Raises:
            EvaluationError: If a setting is unknown or not allowed.
        """
        if self.method is None:
            return None
        published = published_settings(self.method, self.needed)
        return build_method(self.method, {**published, **self.changes})

    def as_record(self) -> dict[str, Any]:
        """Return all settings that affect the arm's answers, for arm.json."""
        method = self.decoding()
        return {
            "method": self.method,
            "settings": None if method is None else asdict(method),  # type: ignore[call-overload]  # all are dataclasses
            "eah": None if self.eah is None else asdict(self.eah),
        }


@dataclass(frozen=True, slots=True)
class _ParsedArm:
    """An arm split into method, EAH and settings; the settings are still text."""

    method: str | None
    eah: bool
    settings: Mapping[str, str]

    def has_setting(self, key: str) -> bool:
        """Return whether a setting is one of EAH's or of the method's in this arm."""
        return self._is_eahs(key) or self._own(key) is not None

    def _is_eahs(self, key: str) -> bool:
        return self.eah and key in EAH_SETTINGS

    def _own(self, key: str) -> str | None:
        """Return a setting's name in the method, also for "opera.threshold"; None if unknown."""
        owner, dot, rest = key.rpartition(".")
        known = published_settings(self.method, {}) if self.method else {}
        return rest if (not dot or owner == self.method) and rest in known else None

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parsed settings of EAH and of the method."""
        of_eah, of_method = {}, {}
        for key, text in self.settings.items():
            if self._is_eahs(key):
                of_eah[key] = read_eah(key, text)
            elif self.method is not None:
                name = key.removeprefix(f"{self.method}.")
                if name in of_method:
                    raise EvaluationError(f"setting {name} of {self.method} is given twice")
                of_method[name] = read_value(text)
            else:
                known = EAH_SETTINGS if self.eah else {}
                hint = nearest(key, known) if known else f"{BASELINE} has no settings"
                raise EvaluationError(f"setting {key!r} of an arm is unknown: {hint}")
        return of_eah, of_method


def arms_of(settings: RunSettings) -> tuple[Arm, ...]:
    """Return the arms of a command's settings.

    Raises:
        EvaluationError: If one is unknown, two are the same, or a setting is not allowed or
            belongs to a method that no arm has.
        ModelError: If the model is unknown.
    """
    names = settings.method or (OPERA_ARMS if _opera_settings(settings) else DEFAULT_ARMS)
    return resolve_arms(expand(names, settings.sweep), _arm_defaults(settings))


def with_arms(settings: Settings, names: Sequence[str]) -> Settings:
    """Return settings with arms given by their recorded names, which are complete."""
    cleared: dict[str, Any] = dict.fromkeys((*EAH_FLAGS, "sink_threshold", *OPERA_FLAGS))
    return replace(settings, method=tuple(names), sweep=(), method_settings=(), **cleared)


def reference_of(settings: RunSettings) -> str | None:
    """Return the recorded name of the reference arm in a command's settings; None if not set.

    Raises:
        EvaluationError: If it is not an arm.
    """
    if settings.reference is None:
        return None
    return resolve(settings.reference, _arm_defaults(settings)).name


class Size(NamedTuple):
    """Size of a language model."""

    layers: int
    width: int

    def fits(self, model: str) -> bool:
        """Return whether the settings of methods in a model's config are for this size."""
        wanted = model_settings(model).methods_for
        return not wanted or self == (wanted["layers"], wanted["width"])


def check_size(arms: Sequence[Arm], model: str, size: Size) -> None:
    """Refuse settings of a model's config that are for another language model.

    Args:
        arms: The arms of the run.
        model: Name of the model.
        size: Size of the language model that was loaded.
    Raises:
        EvaluationError: Naming the method, and both sizes.
    """
    if size.fits(model):
        return
    wanted = model_settings(model).methods_for
    for arm in arms:
        if set(arm.needed) - set(arm.changes):
            raise EvaluationError(
                f"method {arm.name}: {' and '.join(arm.needed)} in configs/{model}.yaml is for a "
                f"language model of {wanted['layers']} layers and width {wanted['width']}, but "
                f"this one has {size.layers} and {size.width}; choose the --model of the "
                f"checkpoint, or write {arm.method}@{next(iter(arm.needed))}=..."
            )


def notes_on_methods(arms: Sequence[Arm], model: str, size: Size) -> Iterator[str]:
    """Yield a note on each method whose settings were published for other models than this one."""
    for method in dict.fromkeys(arm.method for arm in arms if arm.method):
        known = read_methods()[method].get("published_for", ())
        is_known = model in known and size.fits(model)
        if known and not is_known and method not in needed_settings(model):
            names = ", ".join(known)
            yield (
                f"note: the settings of {method} were published for {names}; they may not suit "
                "another model"
            )


def _opera_settings(settings: RunSettings) -> dict[str, Any]:
    """Return OPERA's settings from its own flags."""
    given = {name: getattr(settings, name) for name in OPERA_FLAGS}
    return {name: value for name, value in given.items() if value is not None}


def _arm_defaults(settings: RunSettings) -> ArmDefaults:
    """Return the settings of all arms, from flags and the model's config."""
    methods = {OPERA: _opera_settings(settings)} if _opera_settings(settings) else {}
    for name, changes in read_method_flags(settings.method_settings).items():
        methods.setdefault(name, {}).update(changes)
    eah = {name: getattr(settings, name) for name in EAH_FLAGS}
    eah["threshold"] = settings.sink_threshold
    if settings.rule is not None:
        eah["rule"] = read_eah("rule", settings.rule)
    given = {name: value for name, value in eah.items() if value is not None}
    model, needed = model_settings(settings.model), needed_settings(settings.model)
    return ArmDefaults(model.eah, given, methods, settings.seed, needed)


def resolve_arms(names: Sequence[str], defaults: ArmDefaults) -> tuple[Arm, ...]:
    """Return arms with their settings.

    Args:
        names: Arms as written by the user.
        defaults: Settings of all arms, unless an arm overrides them.
    Raises:
        EvaluationError: If there is none, one is unknown, two are the same, a setting is not
            allowed, or a flag is about a method that no arm has.
    """
    written = dict.fromkeys(names)
    arms = [resolve(name, defaults) for name in written]
    if not arms or len(written) < len(names):
        raise EvaluationError(f"method {list(names)}: name at least one arm, each once")
    by_name: dict[str, str] = {}
    for text, arm in zip(written, arms, strict=True):
        if (other := by_name.setdefault(arm.name, text)) != text:
            raise EvaluationError(
                f"method {text!r} and {other!r} are the same arm, {arm.name}; name each once"
            )
    _check_used(defaults, arms)
    return tuple(arms)


def name_without_eah(name: str) -> str | None:
    """Return the recorded name of an arm without EAH: "vcd" of "vcd+eah@layers=2".

    None if it is not the name of an arm, as in answers of other tools.
    """
    try:
        written = _parse(name)
        _, of_method = written.split()
    except EvaluationError:
        return None
    return arm_name(written.method, method_changes({}, of_method), {})


def expand(names: Sequence[str], sweep: Sequence[str]) -> list[str]:
    """Return the arms, each replaced by its grid if it has swept settings.

    Args:
        names: Arms.
        sweep: Grids, such as ["layers=0,1,2", "threshold=0.001,0.002"].
    Raises:
        EvaluationError: If a sweep has another form, or no arm has its setting.
    """
    grid: dict[str, list[str]] = {}
    for text in sweep:
        key, equals, values = text.partition("=")
        if not equals or not all(part.strip() for part in values.split(",")):
            raise EvaluationError(f"--sweep {text!r}: write sweeps as KEY=V1,V2 (layers=0,1,2)")
        key = key.strip().replace("-", "_")
        if key in grid:
            raise EvaluationError(f"--sweep {key} is given twice; pass one list of values")
        grid[key] = [part.strip() for part in values.split(",")]
    found: list[str] = []
    used: set[str] = set()
    for name in names:
        keys = [key for key in grid if _parse(name).has_setting(key)]
        used.update(keys)
        points = prod(len(grid[key]) for key in keys)
        if len(found) + points > MOST_ARMS:
            raise EvaluationError(
                f"--sweep asks for {len(found) + points} arms or more, but a run has "
                f"at most {MOST_ARMS}; sweep fewer values at a time"
            )
        joint = "," if "@" in name else "@"
        for point in product(*(grid[key] for key in keys)):
            settings = ",".join(f"{k}={v}" for k, v in zip(keys, point, strict=True))
            found.append(f"{name}{joint}{settings}" if keys else name)
    for key in grid:
        if key not in used:
            own = [_settings_of(name) for name in names]
            known = dict.fromkeys(setting for settings in own for setting in settings)
            has = f"they have {', '.join(known)}" if known else "they have none"
            raise EvaluationError(
                f"--sweep {key}: no arm of {', '.join(names)} has such a setting; {has}"
            )
    return found


def _settings_of(name: str) -> list[str]:
    """Return the settings that an arm can have."""
    written = _parse(name)
    of_method = published_settings(written.method, {}) if written.method else ()
    return [*of_method, *(EAH_SETTINGS if written.eah else ())]


def _parse(name: str) -> _ParsedArm:
    """Read an arm.

    Raises:
        EvaluationError: If a part of it is unknown, or it has two decoding methods.
    """
    what, at, text = name.partition("@")
    parts = what.split("+")
    known = [BASELINE, EAH, *read_methods()]
    for part in parts:
        if part not in known or (part == BASELINE and len(parts) > 1):
            which = f"method {part!r}" if len(parts) == 1 else f"method {name!r}: {part!r}"
            if part == BASELINE:
                raise EvaluationError(f"{which} cannot be combined; separate arms by spaces")
            guess = ALIASES.get(part.lower(), part.lower())
            hint = f"did you mean {guess!r}?" if guess in known else nearest(part, known)
            raise EvaluationError(f"{which} is unknown: {hint}")
    methods = [part for part in parts if part not in (EAH, BASELINE)]
    if len(methods) > 1 or len(set(parts)) < len(parts):
        raise EvaluationError(
            f"method {name!r}: an arm has one of {', '.join(read_methods())}, with or without "
            "+eah; separate arms by spaces"
        )
    settings: dict[str, str] = {}
    for setting in text.split(",") if at else ():
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not value.strip() or key in settings:
            raise EvaluationError(
                f"method {name!r}: settings are written eah@layers=2,threshold=0.001, each once; "
                "a list is 0-2 or 1+3"
            )
        settings[key] = value.strip()
    return _ParsedArm(methods[0] if methods else None, EAH in parts, settings)


def resolve(name: str, defaults: ArmDefaults) -> Arm:
    """Return an arm with its settings.

    Raises:
        EvaluationError: If it is unknown, or a setting is not allowed.
    """
    written = _parse(name)
    of_eah, of_method = written.split()
    method = written.method
    needed = defaults.published.get(method or "", {})
    published = published_settings(method, needed) if method else {}
    given = {**defaults.methods.get(method or "", {}), **of_method}
    if defaults.seed is not None and "seed" in published:
        given.setdefault("seed", defaults.seed)
    changes = method_changes(published, given)
    if not written.eah:
        return Arm(arm_name(method, changes, {}), method, changes, needed=needed)
    try:
        config, shown = eah_config(of_eah, defaults)
    except EAHConfigError as error:
        advice = ""
        if "threshold" in of_eah and "threshold_unit" not in of_eah:
            advice = " (for a multiple of uniform attention, add threshold_unit=uniform)"
        raise EvaluationError(f"EAH settings of arm {name}: {error}{advice}") from error
    return Arm(arm_name(method, changes, shown, eah=True), method, changes, config, needed)


def _check_used(defaults: ArmDefaults, arms: Sequence[Arm]) -> None:
    """Refuse flags about a method that no arm has."""
    used = {arm.method for arm in arms}
    for name, settings in defaults.methods.items():
        if name not in used:
            first = next(iter(settings))
            is_flag = name == OPERA and first in OPERA_FLAGS
            flag = first if is_flag else f"method-settings {name}.{first}"
            raise EvaluationError(
                f"--{flag} is a setting of {name}, which no arm of this run has "
                f"({', '.join(arm.name for arm in arms)}); add {name} or {name}+eah to --method"
            )
