"""The published preparation (arXiv:1909.10389, notebooks 1 and 2) written anew: the same steps by the same means, for bench/spark_recipe.py.

Those means are: whole collections as rows of Python objects through an RDD, a Lorentz vector class, an isolation by NumPy for every particle,
events filled up to 801 rows of Python floats, Parquet between the two notebooks, Spark ML's MinMaxScaler, and a Python function that sorts and
standardizes an event. What is computed is the convention "paper" of the recipe `topology`.
"""

import math

import numpy as np
from pyspark.sql import functions as F

COLUMNS = ["EFlowTrack", "EFlowNeutralHadron", "EFlowPhoton", "Electron", "MuonTight", "MuonTight_size", "Electron_size", "MissingET", "Jet"]
MOST = {"track": 450, "photon": 150, "neutral": 200}


class LorentzVector:
    """As the notebooks have one: everything but Cartesian components is computed anew at each call."""

    def __init__(self, px=0.0, py=0.0, pz=0.0, energy=0.0):
        self.px, self.py, self.pz, self.energy = px, py, pz, energy

    def set_pt_eta_phi(self, pt, eta, phi):
        pt = abs(pt)
        self.px, self.py, self.pz = pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)
        self.energy = math.sqrt(self.px * self.px + self.py * self.py + self.pz * self.pz)

    def pt(self):
        return math.sqrt(self.px * self.px + self.py * self.py)

    def magnitude(self):
        return math.sqrt(self.px * self.px + self.py * self.py + self.pz * self.pz)

    def cos_theta(self):
        return self.pz / self.magnitude() if self.magnitude() else 1.0

    def eta(self):
        cosine = self.cos_theta()
        return -0.5 * math.log((1.0 - cosine) / (1.0 + cosine))

    def phi(self):
        return math.atan2(self.py, self.px)

    def delta_r(self, other):
        return distance(self.eta(), self.phi(), other.eta(), other.phi())


def distance(eta, phi, other_eta, other_phi):
    d_eta, d_phi = eta - other_eta, phi - other_phi
    while d_phi > math.pi:
        d_phi -= 2 * math.pi
    while d_phi < -math.pi:
        d_phi += 2 * math.pi
    return math.sqrt(d_eta * d_eta + d_phi * d_phi)


def map_of(particles, momentum, threshold):
    return np.asarray([[p.Eta, p.Phi, p[momentum]] for p in particles if not p[momentum] <= threshold])


def isolation(particle, the_map, is_track_map):
    if particle.pt() <= 0.0:
        return 0.0
    d_eta = the_map[:, 0] - particle.eta()
    d_phi = the_map[:, 1] - particle.phi()
    turn = 2.0 * math.pi
    d_phi = d_phi - turn * (d_phi > turn) + turn * (d_phi < -turn)
    inside = d_phi * d_phi + d_eta * d_eta < 0.3 * 0.3
    total = the_map[inside, 2].sum() / particle.pt()
    return float(total - 1 if is_track_map else total)


def isolations(particle, maps):
    """Charged, photon, neutral: the order of the columns."""
    return [isolation(particle, maps[0], True), isolation(particle, maps[1], False), isolation(particle, maps[2], False)]


def first_isolated(leptons, flags, maps):
    found, vector = None, LorentzVector()
    for lepton in leptons:
        if lepton.PT <= 23.0:
            continue
        vector.set_pt_eta_phi(lepton.PT, lepton.Eta, lepton.Phi)
        around = isolations(vector, maps)
        if found is None and sum(around) < 0.45:
            found = [vector.energy, vector.px, vector.py, vector.pz, vector.pt(), vector.eta(), vector.phi(), 0.0, 0.0, 0.0, *around, 0.0, 0.0, 0.0,
                     *flags, float(lepton.Charge)]  # fmt: skip
    return found


def particle_rows(event, maps, lepton):
    """801 rows of 19; those that are not filled stand at the end."""
    rows, momentum, vector = [lepton], LorentzVector(*lepton[1:4], lepton[0]), LorentzVector()
    filled = dict.fromkeys(MOST, 0)
    for track in event.EFlowTrack:
        if filled["track"] >= MOST["track"] or track.PT <= 0.5:
            continue
        vector.set_pt_eta_phi(track.PT, track.Eta, track.Phi)
        if momentum.delta_r(vector) > 0.0001:
            rows.append([vector.energy, vector.px, vector.py, vector.pz, track.PT, track.Eta, track.Phi, track.X, track.Y, track.Z,
                         *isolations(vector, maps), 1.0, 0.0, 0.0, 0.0, 0.0, float(np.sign(track.PID))])  # fmt: skip
            filled["track"] += 1
    for kind, towers, flags in (("photon", event.EFlowPhoton, [0.0, 0.0, 1.0]), ("neutral", event.EFlowNeutralHadron, [0.0, 1.0, 0.0])):
        for tower in towers:
            if filled[kind] >= MOST[kind] or tower.ET <= 1.0:
                continue
            vector.set_pt_eta_phi(tower.ET, tower.Eta, tower.Phi)
            rows.append([vector.energy, vector.px, vector.py, vector.pz, tower.ET, tower.Eta, tower.Phi, 0.0, 0.0, 0.0,
                         *isolations(vector, maps), *flags, 0.0, 0.0, 0.0])  # fmt: skip
            filled[kind] += 1
    for kind, most in MOST.items():
        for _ in range(filled[kind], most):
            rows.append([0.0] * 19)
    return rows


def high_level_features(event, lepton):
    met = event.MissingET[0]
    momentum = LorentzVector(*lepton[1:4], lepton[0])
    mt = 2.0 * met.MET * momentum.pt() * (1 - math.cos(momentum.phi() - met.Phi))
    ht = jets = b_jets = 0.0
    for jet in event.Jet:
        if jet.PT > 30 and abs(jet.Eta) < 2.6:
            jets += 1
            ht += jet.PT
            b_jets += jet.BTag > 0
    return [ht, met.MET, met.Phi, mt, jets, b_jets, *lepton[4:7], *lepton[10:13], lepton[18], lepton[16]]


def event_features(event):
    """(14 numbers, 801 rows of 19), or None."""
    maps = [map_of(event.EFlowTrack, "PT", 0.5), map_of(event.EFlowPhoton, "ET", 1.0), map_of(event.EFlowNeutralHadron, "ET", 1.0)]
    if any(the_map.shape[0] == 0 for the_map in maps) or (event.Electron_size == 0 and event.MuonTight_size == 0):
        return None
    electron = first_isolated(event.Electron, [1.0, 0.0], maps)
    muon = first_isolated(event.MuonTight, [0.0, 1.0], maps)
    if electron and muon:
        lepton = electron if electron[5] > muon[5] else muon
    else:
        lepton = electron or muon
    return (high_level_features(event, lepton), particle_rows(event, maps, lepton)) if lepton else None


def convert(event):
    """A row of the first notebook's result; an empty one for an event that is dropped."""
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import Row

    found = event_features(event)
    return Row(lfeatures=found[1], hfeatures=Vectors.dense(found[0]), label=event.label) if found else Row()


def ingest(samples, folder):
    """The first notebook: DataFrames of events, in the order of their labels, become Parquet in `folder`."""
    frames = [frame.select(COLUMNS).withColumn("label", F.lit(label)) for label, frame in enumerate(samples)]
    events = frames[0]
    for frame in frames[1:]:
        events = events.union(frame)
    events.rdd.map(convert).filter(lambda row: len(row) > 0).toDF().write.partitionBy("label").parquet(folder)


def order_and_scale(particles):
    """Falling distance to the lepton, which is the first row; then each column of the event by its own mean and deviation."""
    from sklearn.preprocessing import StandardScaler

    eta, phi = particles[0][5], particles[0][6]
    particles.sort(key=lambda particle: distance(eta, phi, particle[5], particle[6]), reverse=True)
    return StandardScaler().fit_transform(particles).tolist()


def prepare(spark, ingested, folder):
    """The second notebook: from the first one's Parquet to training and test set."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import MinMaxScaler, OneHotEncoder
    from pyspark.ml.linalg import Vectors, VectorUDT

    data = spark.read.parquet(ingested)
    counts = {row["label"]: row["count"] for row in data.groupBy("label").count().collect()}
    data = data.withColumn("hfeatures_dense", F.udf(lambda vector: Vectors.dense(vector), VectorUDT(), useArrow=False)("hfeatures"))
    encoder = OneHotEncoder(inputCols=["label"], outputCols=["encoded_label"], dropLast=False)
    data = Pipeline(stages=[encoder, MinMaxScaler(inputCol="hfeatures_dense", outputCol="HLF_input")]).fit(data).transform(data)
    data = data.withColumn("GRU_input", F.udf(order_and_scale, "array<array<double>>", useArrow=False)("lfeatures"))
    least = min(counts.values())
    thinned = [data.where(F.col("label") == label).sample(False, least / count) for label, count in sorted(counts.items())]
    balanced = thinned[0]
    for frame in thinned[1:]:
        balanced = balanced.union(frame)
    train, test = balanced.randomSplit([0.8, 0.2], seed=42)
    test.write.parquet(f"{folder}/test")
    train.orderBy(F.rand(seed=42)).write.parquet(f"{folder}/train")
