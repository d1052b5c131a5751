"""The topology recipe in plain Python, both conventions: what the C implementation is compared with.

Written from the description of the recipe (docs/recipes.md), one event and one particle at a time, for reading and
not for speed. An event is a mapping from column names ("EFlowTrack.PT") to that event's values.
"""

import math

import numpy as np

CONE = 0.3
CONVENTIONS = ("corrected", "paper")


class MissingData(Exception):
    """The event lacks what every event must have."""


def cartesian(pt, eta, phi):
    """Momentum (px, py, pz) of a massless particle, and its energy."""
    px, py, pz = pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)
    return px, py, pz, math.sqrt(px * px + py * py + pz * pz)


def polar(px, py, pz):
    """pt, eta, phi of a momentum."""
    pt = math.sqrt(px * px + py * py)
    return pt, math.asinh(pz / pt), math.atan2(py, px)


def folded(delta_phi):
    """An angle, or an array of them, brought into [-pi, pi]."""
    return delta_phi - 2 * np.pi * np.round(delta_phi / (2 * np.pi))


def momentum_map(pt, eta, phi, threshold):
    keep = pt > threshold
    return eta[keep].astype(float), phi[keep].astype(float), pt[keep].astype(float)


def isolation(particle, the_map, convention, inside):
    """Sum of the map's pt in a cone around the particle, over its pt. inside: the particle is taken to be in the map."""
    pt, eta, phi = particle
    if pt <= 0:
        return 0.0
    map_eta, map_phi, map_pt = the_map
    delta_eta = map_eta - eta
    delta_phi = map_phi - phi
    if convention == "paper":
        delta_phi = delta_phi - 2 * np.pi * (delta_phi > 2 * np.pi) + 2 * np.pi * (delta_phi < -2 * np.pi)
    else:
        delta_phi = folded(delta_phi)
    in_cone = delta_eta**2 + delta_phi**2 < CONE**2
    return map_pt[in_cone].sum() / pt - (1.0 if inside else 0.0)


def isolations(particle, maps, convention, kind):
    """(charged, photon, neutral) isolation. kind: which map the particle belongs to: "track", "photon", "neutral"."""
    values = []
    for name in ("track", "photon", "neutral"):
        inside = name == "track" if convention == "paper" else name == kind
        values.append(isolation(particle, maps[name], convention, inside))
    return values


def find_lepton(event, maps, convention):
    """(row of 19, isolations, is electron, stored pt, stored eta) of the event's lepton, or None."""
    found = {}
    for collection in ("Electron", "MuonTight"):
        for i in range(len(event[collection + ".PT"])):
            stored_pt, stored_eta, stored_phi = (float(event[f"{collection}.{m}"][i]) for m in ("PT", "Eta", "Phi"))
            if not stored_pt > 23:
                continue
            px, py, pz, energy = cartesian(stored_pt, stored_eta, stored_phi)
            pt, eta, phi = polar(px, py, pz)
            charged, photon, neutral = isolations((pt, eta, phi), maps, convention, "track")
            if charged + neutral + photon < 0.45:
                electron = collection == "Electron"
                charge = float(event[collection + ".Charge"][i])
                row = [energy, px, py, pz, pt, eta, phi, 0, 0, 0, charged, photon, neutral]
                row += [0, 0, 0, 1 if electron else 0, 0 if electron else 1, charge]
                found[collection] = {"row": row, "electron": electron, "pt": stored_pt, "eta": stored_eta}
                break
    electron, muon = found.get("Electron"), found.get("MuonTight")
    if electron is None or muon is None:
        return electron or muon
    by = "eta" if convention == "paper" else "pt"
    return electron if electron[by] > muon[by] else muon


def particle_rows(event, maps, convention, lepton):
    rows = [lepton["row"]]
    lepton_eta, lepton_phi = lepton["row"][5], lepton["row"][6]

    count = 0
    for i in range(len(event["EFlowTrack.PT"])):
        stored_pt, stored_eta, stored_phi = (float(event["EFlowTrack." + m][i]) for m in ("PT", "Eta", "Phi"))
        if count == 450 or not stored_pt > 0.5:
            continue
        px, py, pz, energy = cartesian(stored_pt, stored_eta, stored_phi)
        pt, eta, phi = polar(px, py, pz)
        if math.hypot(eta - lepton_eta, folded(phi - lepton_phi)) <= 0.0001:
            continue
        vertex = [float(event["EFlowTrack." + m][i]) for m in ("X", "Y", "Z")]
        charge = np.sign(event["EFlowTrack.PID"][i]) if convention == "paper" else event["EFlowTrack.Charge"][i]
        row = [energy, px, py, pz, stored_pt, stored_eta, stored_phi, *vertex]
        row += isolations((pt, eta, phi), maps, convention, "track")
        rows.append(row + [1, 0, 0, 0, 0, float(charge)])
        count += 1

    for collection, kind, cap, flags in (
        ("EFlowPhoton", "photon", 150, [0, 0, 1, 0, 0, 0]),
        ("EFlowNeutralHadron", "neutral", 200, [0, 1, 0, 0, 0, 0]),
    ):
        count = 0
        for i in range(len(event[collection + ".ET"])):
            stored_pt, stored_eta, stored_phi = (float(event[f"{collection}.{m}"][i]) for m in ("ET", "Eta", "Phi"))
            if count == cap or not stored_pt > 1.0:
                continue
            px, py, pz, energy = cartesian(stored_pt, stored_eta, stored_phi)
            row = [energy, px, py, pz, stored_pt, stored_eta, stored_phi, 0, 0, 0]
            row += isolations(polar(px, py, pz), maps, convention, kind)
            rows.append(row + flags)
            count += 1
    return rows


def high_level(event, convention, lepton):
    jets = [
        (float(pt), int(tag))
        for pt, eta, tag in zip(event["Jet.PT"], event["Jet.Eta"], event["Jet.BTag"])
        if pt > 30 and abs(float(eta)) < 2.6
    ]
    met, met_phi = float(event["MissingET.MET"][0]), float(event["MissingET.Phi"][0])
    row = lepton["row"]
    pt, eta, phi, charged, photon, neutral, charge = row[4], row[5], row[6], row[10], row[11], row[12], row[18]
    mt = 2 * met * pt * (1 - math.cos(phi - met_phi))
    if convention == "corrected":
        mt = math.sqrt(mt)
    bjets = sum(1 for _, tag in jets if tag > 0)
    total = sum(jet_pt for jet_pt, _ in jets)
    is_electron = 1.0 if lepton["electron"] else 0.0
    return [total, met, met_phi, mt, len(jets), bjets, pt, eta, phi, charged, photon, neutral, charge, is_electron]


def event_features(event, convention):
    """(hlf, particles) of one event; None when it is dropped."""
    if len(event["MissingET.MET"]) == 0:
        raise MissingData("MissingET")
    maps = {
        "track": momentum_map(event["EFlowTrack.PT"], event["EFlowTrack.Eta"], event["EFlowTrack.Phi"], 0.5),
        "photon": momentum_map(event["EFlowPhoton.ET"], event["EFlowPhoton.Eta"], event["EFlowPhoton.Phi"], 1.0),
        "neutral": momentum_map(
            event["EFlowNeutralHadron.ET"], event["EFlowNeutralHadron.Eta"], event["EFlowNeutralHadron.Phi"], 1.0
        ),
    }
    if any(len(the_map[0]) == 0 for the_map in maps.values()):
        return None
    lepton = find_lepton(event, maps, convention)
    if lepton is None:
        return None
    particles = particle_rows(event, maps, convention, lepton)
    return np.array(high_level(event, convention, lepton)), np.array(particles)
