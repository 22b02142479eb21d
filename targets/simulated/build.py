"""From a profile, a model and settings to stations on an event queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from traces.errors import InputError

from .engine.batching import Batching, Roofline
from .engine.job import EventQueue, Station
from .engine.kv_memory import TierSize
from .engine.replica import Pool, Replica
from .engine.stations import Disaggregated, Link, Racks
from .profiles import MODEL, Model, Profile, Settings, load, pairs
from .profiles import model as find_model

WEIGHT_BYTES = {"fp16": 2.0, "fp8": 1.0, "fp4": 0.5}
RESERVED = 2e9  # bytes beside weights and KV: activations, graphs, the runtime
LINK_OF = "gpu-prefill+groqrack-decode"  # its link serves where a profile has none: a client that drives two legs
USABLE = 0.92  # share of the memory that the server takes


@dataclass(frozen=True)
class Endpoint:
    """Stations ready to work, with the facts that a report shows."""

    name: str
    profile: Profile
    model: Model
    queue: EventQueue
    station: Station
    legs: Disaggregated | None  # the legs that a client can drive itself; None where prompts can't be handed over
    journal: bool  # are the instants of all tokens kept?
    units: int  # GPUs and racks
    price: float | None  # $/h of the whole endpoint
    watts: float | None

    @property
    def caches(self) -> bool:
        """Does any pool keep a prefix cache?"""
        parts = [self.station, *([self.station.prefill] if isinstance(self.station, Disaggregated) else [])]
        return any(isinstance(part, Pool) and part.replicas[0].memory.cache is not None for part in parts)


@dataclass(frozen=True)
class SimulatedTarget:
    """An endpoint to simulate: its name in the report, its profile (a name or a file), and settings of its own."""

    name: str
    profile: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, settings: Mapping[str, str] = {}, name: str = "") -> SimulatedTarget:
        """`[NAME=]PROFILE[,KEY=VALUE...]`, over `settings`. Raises InputError."""
        head, *rest = text.split(",")
        own_name, _, profile = head.rpartition("=")
        own = pairs(rest, f"--target {text}:", "[NAME=]PROFILE[,KEY=VALUE...]")
        return cls(own_name or name or Path(profile).stem, profile, {**settings, **own})

    def build(self, model: str, seed: int = 0, *, journal: bool = False) -> Endpoint:
        return build(self.profile, model=model, settings=self.settings, journal=journal, seed=seed)


def build(
    name: str, *, model: str = MODEL, settings: Mapping[str, str] = {}, real_time: bool = False,
    journal: bool = False, seed: int = 0,
) -> Endpoint:  # fmt: skip
    """The named endpoint on an event queue of its own. `real_time`: an event for each step and token. `journal`:
    virtual time that keeps the instants of all tokens. Raises InputError for an unknown name, model, setting or value,
    and for a model that doesn't fit."""
    profile = load(name)
    chosen = Settings({**profile.settings, **settings})
    builder = _Builder(find_model(model), EventQueue(), real_time, journal, seed)
    station: Station
    legs: Disaggregated | None = None
    if profile.kind == "disaggregated":
        station, bill = builder.disaggregated(profile, chosen)
        legs = station
    else:
        link = builder.link(load(LINK_OF), chosen.part("link"))
        station, bill = builder.single(profile, chosen)
        if isinstance(station, Pool):
            legs = Disaggregated(station, link, station)
    return Endpoint(profile.name, profile, builder.model, builder.queue, station, legs, journal, *bill)


Bill = tuple[int, float | None, float | None]


@dataclass(frozen=True, slots=True)
class _Builder:
    model: Model
    queue: EventQueue
    real_time: bool
    journal: bool
    seed: int

    def single(self, profile: Profile, settings: Settings) -> tuple[Pool | Racks, Bill]:
        if profile.kind == "disaggregated":
            raise InputError(f"{profile.name} is a composition", remedy="name a GPU or a rack as its part")
        made = self.gpus(profile, settings) if profile.kind == "gpu" else self.racks(profile, settings)
        settings.none_left()
        return made

    def gpus(self, profile: Profile, settings: Settings) -> tuple[Pool, Bill]:
        pool, tp = settings.count("pool", profile.pool, 1), settings.count("tp", 1, 1)
        engine = settings.text("engine", next(iter(profile.engines)), tuple(profile.engines))
        figures = profile.figures | profile.engines[engine]
        model = self.model
        precision = settings.text("precision", "fp16", tuple(WEIGHT_BYTES))
        weight = WEIGHT_BYTES[precision]
        kv_bytes = model.kv_bytes * WEIGHT_BYTES[settings.text("kv_precision", "fp16", ("fp16", "fp8"))] / 2
        speed = settings.figure("bandwidth", figures) * settings.figure("mbu", figures) * tp
        # Hardware without arithmetic of that precision still reads fewer bytes.
        peak = settings.figure("peak", figures)
        if f"peak_{precision}" in figures:
            peak = settings.figure(f"peak_{precision}", figures)
        flops = peak * settings.figure("mfu", figures) * tp
        link, all_reduce = settings.figure("interconnect", figures, 1e12), settings.figure("all_reduce", figures, 0.0)
        exchanged = 2 * model.layers * 2 * model.hidden * 2 * (tp - 1) / tp / link  # seconds a token, ring all-reduce
        body, active = model.parameters - model.embedding, model.parameters - 2 * model.embedding
        draft_cost = settings.number("draft_cost", 0.05)
        memory = USABLE * settings.figure("memory", figures) * tp
        kv_tokens = (memory - weight * model.parameters - RESERVED * tp) / kv_bytes
        if kv_tokens < 16:
            problem = f"{model.name} in {precision} doesn't fit into {profile.name}"
            raise InputError(problem, remedy="set tp or precision")
        batching = self._batching(settings, kv_tokens, kv_bytes)
        roofline = Roofline(
            weights=weight * body / speed,
            kv=kv_bytes / speed,
            attention=4 * model.hidden * model.layers / flops,
            decoded=2 * body / flops,
            prefilled=2 * active / flops,
            head=2 * model.embedding / flops,
            c0=settings.figure("c0", figures) + (2 * model.layers * all_reduce if tp > 1 else 0.0),
            c1=settings.figure("c1", figures),
            reduce=exchanged,
            gain=sum(batching.acceptance**k for k in range(batching.drafted + 1)),
            verified=batching.drafted + 1,
            draft=batching.drafted * draft_cost * weight * body / speed,
        )
        return Pool([Replica(self.queue, roofline, batching) for _ in range(pool)]), _bill(profile, settings, pool * tp)

    def _batching(self, settings: Settings, kv_tokens: float, kv_bytes: float) -> Batching:
        acceptance, tiers = settings.number("acceptance", 0.7), []
        if acceptance > 1:
            raise InputError(f"acceptance={acceptance:g}", remedy="a probability, 0 to 1")
        for name, bandwidth in (("cpu", 41e9), ("disk", 4.5e9)):
            size, speed = settings.number(f"{name}_gb", 0.0) * 1e9, settings.number(f"{name}_bandwidth", bandwidth, 1.0)
            if size:
                tiers.append(TierSize(size / kv_bytes, kv_bytes / speed))
        return Batching(
            kv_tokens=kv_tokens, context=self.model.context, max_batch=settings.count("max_batch", 256, 1),
            chunk=settings.count("chunk", 8192) or 1 << 40,
            decode_first=settings.text("policy", "decode-first", ("decode-first", "prefill-first")) == "decode-first",
            static=settings.text("batching", "continuous", ("continuous", "static")) == "static",
            interval=settings.number("interval_ms", 0.0) / 1e3, acceptance=acceptance,
            drafted=settings.count("drafted", 0), seed=self.seed,
            prefix_cache=bool(settings.count("prefix_cache", 1 if tiers else 0)), tiers=tuple(tiers),
            longest=1 if self.real_time else inf, journal=self.journal,
        )  # fmt: skip

    def racks(self, profile: Profile, settings: Settings) -> tuple[Racks, Bill]:
        model, figures = self.model, profile.figures
        reference = find_model("llama2-7b")
        # A stage holds one layer and streams it from SRAM once a token: its time goes with the layer's weights.
        size = (model.parameters - 2 * model.embedding) / model.layers
        size /= (reference.parameters - 2 * reference.embedding) / reference.layers
        kv_tokens = int((settings.figure("sram", figures) - 2 * model.parameters) / model.kv_bytes)
        if kv_tokens < 16:
            raise InputError(f"{model.name} doesn't fit into one {profile.name}", remedy="choose a smaller model")
        pool = settings.count("pool", profile.pool, 1)
        racks = Racks(
            self.queue, racks=pool, stages=model.layers, stage=settings.figure("stage", figures) * size,
            limit=min(kv_tokens, model.context), every_token=self.real_time,
        )  # fmt: skip
        return racks, _bill(profile, settings, pool)

    def link(self, profile: Profile, settings: Settings) -> Link:
        link = Link(
            queue=self.queue, t0=settings.figure("t0", profile.link),
            bandwidth=settings.figure("bandwidth", profile.link) * 1e9,
            handover=settings.figure("handover", profile.link), overlap=bool(settings.count("overlap", 0)),
            token_bytes=self.model.kv_bytes, layers=self.model.layers,
        )  # fmt: skip
        settings.none_left()
        return link

    def disaggregated(self, profile: Profile, settings: Settings) -> tuple[Disaggregated, Bill]:
        # `pool=P:D` is short for prefill.pool=P and decode.pool=D.
        pools = settings.text("pool", "").split(":")
        sizes = [{} if pools == [""] else {"pool": pools[side]} for side in (0, -1)]
        prefill_settings, decode_settings = settings.part("prefill", sizes[0]), settings.part("decode", sizes[1])
        local_below = settings.count("local_below", 0)
        source, sink = settings.text("prefill", profile.prefill), settings.text("decode", profile.decode)
        prefill, bill = self.single(load(source), prefill_settings)
        decode, bill_decode = self.single(load(sink), decode_settings)
        if not isinstance(prefill, Pool):
            raise InputError(f"{source} can't hand its KV cache over", remedy="prefill on a GPU")
        if local_below and not isinstance(decode, Pool):
            raise InputError("local_below needs a decode pool of GPUs")
        link = self.link(profile, settings.part("link"))
        settings.none_left()
        total = (bill[0] + bill_decode[0], _sum(bill[1], bill_decode[1]), _sum(bill[2], bill_decode[2]))
        return Disaggregated(prefill, link, decode, local_below=local_below), total


def _bill(profile: Profile, settings: Settings, units: int) -> Bill:
    price = settings.figure("price", profile.figures, 0.0) * units
    watts = settings.figure("watts", profile.figures, 0.0) * units
    return units, price or None, watts or None


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
