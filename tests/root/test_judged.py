"""Columns of the corpus that no other reader gives, value by value against ROOT itself. Needs the developers' data."""

import collections
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from test_corpus import by_name, family

FIRST, LAST = 6, 1  # entries of each column that are compared: so many from its beginning, so many from its end
LEAST_SHARE = 0.8  # of the columns of each family that are read and confirmed


# Columns of which ROOT 6.40 gives no values, or others than the file holds.
NOT_GIVEN = {
    ("TreeTObjArray.root", "arr"): "ROOT drops objects of emulated classes from its own lists",
    ("digi.root", "DigiEvent/m_tkrDigiCol"): "the same",
    ("memleak.root", "mono/fSmoothMonoM"): "the same",
    ("CMS.root", "Coll_test/collection"): "ROOT makes 0 or 1 of a bool that was stored as a byte",
    ("uproot-issue403.root", "Geant4Data./Geant4Data.ions"): "empty; ROOT does not initialise what it does not know",
    ("uproot-issue404.root", "Geant4Data./Geant4Data.ions"): "the same",
    ("uproot-issue404.root", "Model./Model.collimatorInfo"): "the same",
    ("alice_ESDs.root", "ESDfriend./ESDfriend.fTracks/ESDfriend.fTracks.fCalibContainer"): "the number of items is in a file that is not there",
}


# Files of which that is all that there is.
NONE_GIVEN = {"TreeTObjArray.root", "CMS.root"}

# ROOT 6.40 misses offsets that it generates itself: it is asked for the same events in a file that has them.
TWINS = {"scikit-hep-testdata/uproot-small-dy-nooffsets.root": "scikit-hep-testdata/uproot-small-dy-withoffsets.root"}


class Unjudged(Exception):
    """ROOT does not give the value."""


# ---- Our values -----------------------------------------------------------------------------------------------------


def plain(array):
    """An Arrow array as Python values, texts as Latin-1."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_list(kind):
        offsets, items = array.offsets.to_pylist(), plain(array.values)
        values = [items[a:b] for a, b in zip(offsets, offsets[1:])]
    elif pa.types.is_fixed_size_list(kind):
        n, items = kind.list_size, plain(array.values)
        values = [items[n * i : n * (i + 1)] for i in range(array.offset, array.offset + len(array))]
    elif pa.types.is_struct(kind):
        fields = [plain(array.field(i)) for i in range(kind.num_fields)]
        values = [{field.name: column[i] for field, column in zip(kind, fields)} for i in range(len(array))]
    elif pa.types.is_string(kind):
        return [text.decode("latin-1") for text in array.view(pa.binary()).to_pylist()]
    else:
        return array.to_pylist()
    return [value if ok else None for value, ok in zip(values, array.is_valid().to_pylist())]


def our_values(tree, branch, entries):
    """{entry: value} of one column."""
    out = {}
    first = max(entries) + 1 if max(entries) < FIRST else FIRST
    for begin, end in {(0, first), (max(entries) - LAST + 1 if first == FIRST else 0, max(entries) + 1)}:
        table = tree.arrow([branch["name"]], max(begin, 0), end)
        values = [value for chunk in table.column(0).chunks for value in plain(chunk)]
        out.update(zip(range(max(begin, 0), end), values))
    return {entry: out[entry] for entry in entries}


# ---- Comparing ------------------------------------------------------------------------------------------------------


def resolve(value, tokens):
    """What a branch holds, inside the object of the top branch: lists are gone through."""
    if value == "?":
        raise Unjudged("ROOT fails")
    if not tokens:
        return value
    if isinstance(value, list):
        return [resolve(item, tokens) for item in value]
    for n in range(len(tokens), 0, -1):
        name = ".".join(tokens[:n])
        if isinstance(value, dict) and name in value:
            return resolve(value[name], tokens[n:])
    raise Unjudged(f"ROOT has no {'.'.join(tokens)}")


def place(branch):
    """Where a column is inside the object of its top branch."""
    top, *_, own = [*branch["path"].split("/"), branch["path"].rsplit("/", 1)[-1]]
    if "/" not in branch["path"]:
        return []
    own = re.sub(r"(\[\d*\])+$", "", own)
    prefix = top.rstrip(".") + "."
    own = own.removeprefix(prefix)
    tokens = own.split(".")
    return tokens[:-1] if branch["type_name"] == "BASE" else tokens


def flat(value):
    return [inner for item in value for inner in flat(item)] if isinstance(value, list) else [value]


def same(ours, theirs, name=""):
    """Whether the values are the same; members that ROOT has and we pass over are no difference."""
    if theirs == "?":
        raise Unjudged("ROOT fails")
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if set(ours) - set(theirs) - {"fSize"}:
            raise Unjudged(f"ROOT has no {sorted(set(ours) - set(theirs))}")
        return all(same(value, theirs[key], key) for key, value in ours.items() if key in theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs) and not any(isinstance(item, list) for item in theirs):
            ours = flat(ours)
        return len(ours) == len(theirs) and all(map(same, ours, theirs, [name] * len(ours)))
    if isinstance(ours, dict) and set(ours) == {"fUniqueID", "fBits"} and isinstance(theirs, list):
        return True  # the TObject of a collection, of which ROOT is asked for the items
    if isinstance(ours, list) and len(ours) == 1 and not isinstance(theirs, (list, dict)):  # "x[1]" is one number to ROOT
        return same(ours[0], theirs, name)
    if isinstance(ours, int) and isinstance(theirs, list):  # the number of items of a split collection
        return ours == len(theirs)
    if isinstance(ours, bool):
        return isinstance(theirs, int) and ours == bool(theirs)
    if name == "fBits":  # ROOT sets two bits of objects in memory
        return (ours | 0x3000000) == (theirs | 0x3000000)
    if name in ("ref", "refs"):
        return ours & 0xFFFFFF == theirs & 0xFFFFFF
    if isinstance(ours, float) and (ours != ours or ours in (float("inf"), float("-inf"))):
        return str(ours) == theirs
    return type(ours) is not bool and ours == theirs


# ---- The test ---------------------------------------------------------------------------------------------------------


def ask_root(requests):
    """{(file, tree, branch, entry): value} of what ROOT gives."""
    judge = Path(__file__).with_name("judge.py")
    lines = "".join(json.dumps([file, rows]) + "\n" for file, rows in requests.items())
    done = subprocess.run([sys.executable, judge], input=lines, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = {}
    for line in done.stdout.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            try:
                answers[tuple(json.loads(key))] = json.loads(value)
            except ValueError:
                pass  # cut off by what ended its process
    return answers


def judge(corpus, columns):
    """What ROOT gives: whole objects of top branches; where that ends ROOT, objects of which one branch only was read."""
    wanted = [(TWINS.get(file, file), path, branch["path"], sorted(values)) for file, path, branch, _, values in columns if isinstance(values, dict)]
    answers = {}
    for part_of in (lambda name: name.split("/")[0], lambda name: name):
        requests = collections.defaultdict(dict)
        for file, path, name, entries in wanted:
            if any((file, path, name.split("/")[0], e) not in answers for e in entries):
                requests[file][path, part_of(name)] = entries
        lines = {str(corpus / file): [[*key, entries] for key, entries in rows.items()] for file, rows in requests.items()}
        answers.update({(str(Path(key[0]).relative_to(corpus)), *key[1:]): value for key, value in ask_root(lines).items()})
    return answers


def columns_without_witness(corpus):
    """(file, object) → [(name, number, type)] of the columns without a digest, bare TObject parents left out."""
    found = collections.defaultdict(list)
    for line in (corpus / "digests.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "RNTuple" in (row.get("cls") or ""):
            continue
        for (_, name, number), branch in by_name([row]).items():
            if branch["digest"] is None and re.split(r"[./]", name)[-1] != "TObject":
                found[row["file"], row["object"]].append((name, number, branch["type"]))
    return found


def collect(corpus):
    """[(file, object, branch, type, our values by entry or the reason why there are none)]."""
    import sapwood

    out = []
    for (file, path), wanted in columns_without_witness(corpus).items():
        tree = sapwood.open(corpus / file)[path]
        branches = collections.defaultdict(list)
        for branch in tree.branches():
            if not branch.get("container"):
                branches[branch["path"]].append(branch)
        for name, number, type_name in wanted:
            branch = branches[name][number]
            values = branch["reason"]
            try:
                if values is None:
                    entries = [*range(min(FIRST, tree.entries)), *range(max(FIRST, tree.entries - LAST), tree.entries)]
                    values = our_values(tree, branch, entries) if entries else {}
            except (sapwood.Error, OSError) as error:
                values = str(error)
            out.append((file, path, branch, type_name, values))
    return out


def verdict(answers, file, path, branch, values):
    if isinstance(values, str) or values is None:
        return "unread: " + re.sub(r"^.*?@0x[0-9a-f]+: (entry \d+: )?", "", str(values))
    known = NOT_GIVEN.get((file.rsplit("/", 1)[-1], branch["path"]))
    if branch["path"].endswith("KM3NETDAQ::JDAQPreamble"):
        known = "ROOT takes its bytes for a byte count"
    if branch["path"].endswith("KM3NETDAQ::JDAQModuleIdentifier"):
        known = "ROOT puts it into another place of the object, and other members with it"
    if known:
        return f"not given: {known}"
    tokens = place(branch)
    top = branch["path"].split("/")[0]
    try:
        for entry, ours in values.items():
            twin = TWINS.get(file, file)
            theirs = answers.get((twin, path, top, entry), answers.get((twin, path, branch["path"], entry), "?"))
            if not same(ours, resolve(theirs, tokens), tokens[-1] if tokens else ""):
                return f"differs: entry {entry}"
    except Unjudged as reason:
        return f"not given: {reason}"
    return "confirmed"


def test_judged_by_root(shared_data, capsys):
    pytest.importorskip("pyarrow")
    corpus = shared_data / "corpus"
    columns = collect(corpus)
    answers = judge(corpus, columns)

    families, files = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter)
    others = collections.Counter()
    for file, path, branch, type_name, values in columns:
        known = type_name if type_name and type_name != "unknown" else branch["type_name"]
        result = verdict(answers, file, path, branch, values)
        kind = result.split(":")[0]
        families[family(known)][kind] += 1
        files[file][kind] += 1
        if kind != "confirmed":
            others[f"{result} — {file.rsplit('/', 1)[-1]}:{branch['path']}"] += 1
    with capsys.disabled():
        print()
        for name, counts in sorted(families.items()):
            print(f"  {name:16} {counts['confirmed']:5} of {counts.total():5} confirmed by ROOT", dict(counts))
        for text in sorted(others):
            print("   ", text)
    assert not [text for text in others if text.startswith("differs")]
    assert {file.rsplit("/", 1)[-1] for file, counts in files.items() if not counts["confirmed"]} <= NONE_GIVEN
    for name, counts in families.items():
        if name == "bitset":  # those of the corpus were written without their bytes; test_root_types writes others
            continue
        assert counts["confirmed"] >= LEAST_SHARE * counts.total(), name
