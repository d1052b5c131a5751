"""The topology recipe (convention "corrected") in plain PySpark, twice: as SQL with higher-order functions, and as a Python function an event.

Both take a DataFrame of Delphes events with collections as array<struct>, as `spark.read.format("root")` gives them, and keep its columns
`file` and `entry`. They are for exploring: `sapwood.spark.prepare` gives the same numbers, and `bench/spark_recipe.py` says how much sooner.
What is computed stands in docs/recipes.md.
"""

from __future__ import annotations

import math
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

HLF = "HT MET PhiMET MT nJets nBjets LepPt LepEta LepPhi LepIsoCh LepIsoGamma LepIsoNeu LepCharge LepIsEle".split()
COLLECTIONS = ("EFlowTrack", "EFlowPhoton", "EFlowNeutralHadron", "Electron", "MuonTight", "Jet", "MissingET")

# ---- SQL -------------------------------------------------------------------------------------------------------------


def folded(angle: str) -> str:
    """An angle brought into [-pi, pi]."""
    return f"({angle} - 2 * pi() * rint(({angle}) / (2 * pi())))"


def map_of(collection: str, pt: str, threshold: float) -> str:
    """(pt, eta, phi) of what is hard enough, in double precision."""
    return f"""transform(filter({collection}, x -> x.{pt} > {threshold}),
        x -> struct(double(x.{pt}) AS pt, double(x.Eta) AS eta, double(x.Phi) AS phi))"""


def isolation(the_map: str) -> str:
    """Of the particle p: what the map has in a cone around it, over its pT."""
    inside = f"pow(x.eta - p.eta, 2) + pow({folded('x.phi - p.phi')}, 2) < 0.09"
    return f"aggregate({the_map}, 0D, (sum, x) -> sum + if({inside}, x.pt, 0D)) / p.pt"


def leptons_of(collection: str) -> str:
    """Those with PT > 23; pt, eta and phi from the Cartesian momentum, without a mass."""
    momentum = "double(x.PT) * cos(double(x.Phi)) AS px, double(x.PT) * sin(double(x.Phi)) AS py, double(x.PT) * sinh(double(x.Eta)) AS pz"
    hard = f"transform(filter({collection}, x -> x.PT > 23), x -> struct(x.PT AS stored, double(x.Charge) AS charge, {momentum}))"
    polar = "sqrt(x.px * x.px + x.py * x.py) AS pt, asinh(x.pz / sqrt(x.px * x.px + x.py * x.py)) AS eta, atan2(x.py, x.px) AS phi"
    return f"transform({hard}, x -> struct(x.stored, x.charge, {polar}))"


def first_isolated(leptons: str) -> str:
    isolated = f"""transform({leptons}, p -> struct(p.stored, p.charge, p.pt, p.eta, p.phi,
        {isolation("tracks")} - 1 AS charged, {isolation("photons")} AS photon, {isolation("neutrals")} AS neutral))"""
    return f"get(filter({isolated}, p -> p.charged + p.neutral + p.photon < 0.45), 0)"


def high_level_features_sql(events: DataFrame) -> DataFrame:
    """file, entry and hlf, an array of 14 numbers, of the selected events."""
    maps = (
        events.withColumn("tracks", F.expr(map_of("EFlowTrack", "PT", 0.5)))
        .withColumn("photons", F.expr(map_of("EFlowPhoton", "ET", 1.0)))
        .withColumn("neutrals", F.expr(map_of("EFlowNeutralHadron", "ET", 1.0)))
        .where("size(tracks) > 0 AND size(photons) > 0 AND size(neutrals) > 0")
    )
    candidates = (
        maps.withColumn("electron", F.expr(first_isolated(leptons_of("Electron"))))
        .withColumn("muon", F.expr(first_isolated(leptons_of("MuonTight"))))
        .where("electron IS NOT NULL OR muon IS NOT NULL")
        .withColumn("is_electron", F.expr("muon IS NULL OR coalesce(electron.stored > muon.stored, false)"))
        .withColumn("lepton", F.expr("if(is_electron, electron, muon)"))
    )
    jets = candidates.withColumn("jets", F.expr("filter(Jet, x -> x.PT > 30 AND abs(double(x.Eta)) < 2.6)"))
    return jets.withColumn("met", F.expr("MissingET[0]")).selectExpr(
        "file",
        "entry",
        """transform(array(aggregate(jets, 0D, (sum, x) -> sum + double(x.PT)), double(met.MET), double(met.Phi),
            sqrt(2 * double(met.MET) * lepton.pt * (1 - cos(lepton.phi - double(met.Phi)))),
            double(size(jets)), double(size(filter(jets, x -> x.BTag > 0))),
            lepton.pt, lepton.eta, lepton.phi, lepton.charged, lepton.photon, lepton.neutral, lepton.charge,
            if(is_electron, 1D, 0D)), x -> float(x)) AS hlf""",
    )


# ---- Python, an event at a time -----------------------------------------------------------------------------------------


def cartesian(pt: float, eta: float, phi: float) -> tuple[float, float, float, float]:
    px, py, pz = pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)
    return px, py, pz, math.sqrt(px * px + py * py + pz * pz)


def polar(px: float, py: float, pz: float) -> tuple[float, float, float]:
    pt = math.sqrt(px * px + py * py)
    return pt, math.asinh(pz / pt), math.atan2(py, px)


def fold(angle: float) -> float:
    return angle - 2 * math.pi * round(angle / (2 * math.pi))


def isolations(particle: tuple[float, float, float], maps: dict[str, list], kind: str) -> list[float]:
    pt, eta, phi = particle
    values = []
    for name in ("track", "photon", "neutral"):
        total = 0.0
        for other_pt, other_eta, other_phi in maps[name]:
            if (other_eta - eta) ** 2 + fold(other_phi - phi) ** 2 < 0.09:
                total += other_pt
        values.append(total / pt - (1.0 if name == kind else 0.0))
    return values


def find_lepton(event: Any, maps: dict[str, list]) -> tuple[float, list[float]] | None:
    """(stored pT, row of 19) of the harder of the first isolated electron and the first isolated muon."""
    found = []
    for collection, flags in (("MuonTight", [0, 0, 0, 0, 1]), ("Electron", [0, 0, 0, 1, 0])):
        for lepton in event[collection]:
            if not lepton.PT > 23:
                continue
            px, py, pz, energy = cartesian(lepton.PT, lepton.Eta, lepton.Phi)
            pt, eta, phi = polar(px, py, pz)
            around = isolations((pt, eta, phi), maps, "track")
            if sum(around) < 0.45:
                row = [energy, px, py, pz, pt, eta, phi, 0, 0, 0, *around, *flags, lepton.Charge]
                found.append((lepton.PT, row))
                break
    return max(found, key=lambda pair: pair[0]) if found else None  # on a tie the muon, which is the first


def particle_rows(event: Any, maps: dict[str, list], lepton: list[float]) -> list[float]:
    rows = list(lepton)
    count = 0
    for track in event.EFlowTrack:
        if count == 450 or not track.PT > 0.5:
            continue
        px, py, pz, energy = cartesian(track.PT, track.Eta, track.Phi)
        pt, eta, phi = polar(px, py, pz)
        if math.hypot(eta - lepton[5], fold(phi - lepton[6])) <= 0.0001:
            continue
        rows += [energy, px, py, pz, track.PT, track.Eta, track.Phi, track.X, track.Y, track.Z]
        rows += [*isolations((pt, eta, phi), maps, "track"), 1, 0, 0, 0, 0, track.Charge]
        count += 1
    for collection, kind, most, flags in (
        ("EFlowPhoton", "photon", 150, [0, 0, 1, 0, 0, 0]),
        ("EFlowNeutralHadron", "neutral", 200, [0, 1, 0, 0, 0, 0]),
    ):
        for tower in [tower for tower in event[collection] if tower.ET > 1.0][:most]:
            px, py, pz, energy = cartesian(tower.ET, tower.Eta, tower.Phi)
            rows += [energy, px, py, pz, tower.ET, tower.Eta, tower.Phi, 0, 0, 0]
            rows += [*isolations(polar(px, py, pz), maps, kind), *flags]
    return rows


def event_features(event: Any) -> tuple[list[float], list[float]] | None:
    """(hlf, particles) of one event, a Row; None when it is not selected."""
    maps = {
        "track": [(t.PT, t.Eta, t.Phi) for t in event.EFlowTrack if t.PT > 0.5],
        "photon": [(t.ET, t.Eta, t.Phi) for t in event.EFlowPhoton if t.ET > 1.0],
        "neutral": [(t.ET, t.Eta, t.Phi) for t in event.EFlowNeutralHadron if t.ET > 1.0],
    }
    if not all(maps.values()):
        return None
    found = find_lepton(event, maps)
    if found is None:
        return None
    lepton = found[1]
    jets = [jet for jet in event.Jet if jet.PT > 30 and abs(jet.Eta) < 2.6]
    met, met_phi = event.MissingET[0].MET, event.MissingET[0].Phi
    hlf = [
        sum(jet.PT for jet in jets), met, met_phi, math.sqrt(2 * met * lepton[4] * (1 - math.cos(lepton[6] - met_phi))),
        len(jets), sum(1 for jet in jets if jet.BTag > 0), *lepton[4:7], *lepton[10:13], lepton[18], lepton[16],
    ]  # fmt: skip
    return [float(x) for x in hlf], [float(x) for x in particle_rows(event, maps, lepton)]


def features_udf(events: DataFrame) -> DataFrame:
    """file, entry, hlf and particles (rows of 19, one after another) of the selected events, by a Python function that sees each as a Row."""
    of_event = F.udf(event_features, "hlf array<float>, particles array<float>")
    result = events.select("file", "entry", of_event(F.struct(*COLLECTIONS)).alias("features"))
    return result.where("features IS NOT NULL").select("file", "entry", "features.hlf", "features.particles")
