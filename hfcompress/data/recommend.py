"""The built-in data set `recommend`: a query is the history of a user, a document is an item.

Everything, including the texts, is generated from one seed by the rules below. The set is for examples and tests;
metrics on it say nothing about the quality of recommendations to real users.

1. Items: every subject of every craft in every form (course, kit, ...), 768 in total. The title is "form: craft,
   subject"; the text is a sentence with the same words and the level.
2. Partners: every item has 4 fixed random partners: 3 of its own craft, 1 of the next craft in the list.
3. Users: each has a main craft (Zipf: the n-th craft has weight 1/n) and takes 6 to 10 items in sequence: with
   probability 70% a partner of one of the last two items, with 20% an item of the main craft, else any item, by
   popularity (Zipf over a fixed shuffled order). No item is taken twice.
4. Query: the titles of all but the last two items, the newest first. Relevant: the last two items.
5. Candidates (an impression, as in news recommendation): these two, and 18 others that the user did not take, judged as
   not relevant: 6 sampled by how often train users took them together with items of the history, 12 by popularity. The
   set is a pool. Candidates are ordered by co-occurrence with the history.
6. Splits: by a hash of the user's id, 70% train, 10% dev, 20% test. Co-occurrence is counted over train users only,
   including their last items.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations

from hfcompress.data.document import Document
from hfcompress.data.draft import hashed_split
from hfcompress.data.ranking import SPLITS, RankingData, Split, stable_hash
from hfcompress.utils.progress import progress_bar

SEED, USERS = 0, 3000
FORMS = ("course", "kit", "handbook", "tool set", "video class", "workshop")
LEVELS = ("beginners", "advanced learners", "everyone")
CRAFTS: dict[str, tuple[str, ...]] = {
    "baking": ("sourdough", "rye bread", "puff pastry", "layer cakes", "biscuits", "flatbread", "brioche", "tarts"),
    "gardening": ("tomatoes", "roses", "compost", "bonsai", "herbs", "orchards", "pruning trees", "greenhouses"),
    "knitting": ("socks", "cable sweaters", "lace shawls", "mittens", "hats", "blankets", "yarn dyeing", "colourwork"),
    "woodworking": ("dovetail joints", "chairs", "bowls", "shelves", "carving spoons", "veneer", "boxes", "planes"),
    "photography": ("portraits", "landscapes", "night skies", "macro", "darkroom prints", "birds", "street", "light"),
    "cycling": ("wheel building", "touring", "bike fitting", "mountain trails", "brakes", "training", "races", "cargo"),
    "music": ("guitar chords", "piano scales", "drum grooves", "mixing", "songwriting", "violin", "choir", "harmony"),
    "painting": ("watercolour", "oil portraits", "acrylics", "perspective", "still life", "murals", "gouache", "ink"),
    "programming": ("Python", "databases", "web pages", "games", "compilers", "robots", "data analysis", "testing"),
    "languages": ("Spanish verbs", "Chinese tones", "German cases", "French reading", "Arabic script", "Japanese kanji",
                  "Finnish", "sign language"),
    "climbing": ("knots", "bouldering", "route setting", "belaying", "ice", "finger strength", "crack", "alpine"),
    "chess": ("openings", "endgames", "tactics", "pawn structures", "blitz", "problems", "gambits", "defence"),
    "sewing": ("dresses", "zips", "quilts", "patterns", "shirts", "curtains", "embroidery", "leather bags"),
    "astronomy": ("telescopes", "planets", "star charts", "galaxies", "comets", "lunar maps", "spectra", "eclipses"),
    "cheese making": ("mozzarella", "blue cheese", "cheddar", "goat cheese", "brine", "rennet", "ageing", "ricotta"),
    "pottery": ("glazes", "teapots", "wheel throwing", "tiles", "raku", "kilns", "hand building", "plates"),
}  # fmt: skip
PARTNERS_OWN, PARTNERS_NEXT = 3, 1
RELEVANT, BY_POPULARITY, BY_COUNTS = 2, 12, 6


class _Sampler:
    """Samples items by popularity."""

    def __init__(self, items: Sequence[str], weight: Mapping[str, float]) -> None:
        self.items = list(items)
        self._cumulative = list(accumulate(weight[item] for item in items))

    def __call__(self, rng: random.Random) -> str:
        return rng.choices(self.items, cum_weights=self._cumulative)[0]


def load_recommend(limits: Mapping[str, int | None] | None = None, progress: bool = True) -> RankingData:
    """Generate the data set by the rules of this module. It is the same on every machine.

    Args:
        limits: Maximum number of users by split. Co-occurrence is counted over all train users nevertheless.
        progress: Show a progress bar.
    """
    items = _items()
    by_craft = {craft: [key for key in items if key.startswith(f"{craft}/")] for craft in CRAFTS}
    rng = random.Random(SEED)
    popular = list(items)
    rng.shuffle(popular)
    weight = {item: 1 / rank for rank, item in enumerate(popular, 1)}
    partners = _partners(rng, by_craft)
    anything = _Sampler(popular, weight)
    of_craft = {craft: _Sampler(members, weight) for craft, members in by_craft.items()}
    histories = {f"user-{number}": _history(rng, of_craft, anything, partners) for number in range(USERS)}
    users: dict[str, list[str]] = {split: [] for split in SPLITS}
    for user in sorted(histories, key=stable_hash):
        users[hashed_split(user, SEED)].append(user)
    together = _counts([histories[user] for user in users["train"]])
    kept = {split: members[: (limits or {}).get(split)] for split, members in users.items()}
    total = sum(map(len, kept.values()))
    with progress_bar(total=total, desc="making impressions", unit="user", disable=not progress, leave=False) as bar:
        splits = {}
        for split, members in kept.items():
            qrels: dict[str, dict[str, int]] = {}
            candidates: dict[str, list[str]] = {}
            for user in members:
                seen, taken = histories[user][:-RELEVANT], histories[user][-RELEVANT:]
                near: Counter[str] = Counter()
                for item in seen:
                    near.update(together.get(item, {}))
                others = _impression(random.Random(f"{SEED}:{user}"), {*seen, *taken}, near, anything)
                listed = sorted([*taken, *others], key=lambda item: (-near[item], item))
                qrels[user] = {item: int(item in taken) for item in listed}
                candidates[user] = listed
                bar.update()
            splits[split] = Split(qrels, candidates)
    return RankingData(
        name="recommend",
        queries={
            user: "; ".join(items[item].title for item in reversed(histories[user][:-RELEVANT]))
            for members in kept.values()
            for user in members
        },
        corpus=items,
        splits=splits,
        pool=True,
        publish_texts=True,
        first_stage="co-occurrence",
        license="Apache-2.0 (generated)",
        notes=("generated by the rules in hfcompress/data/recommend.py: users and items are made up",),
    )


def _items() -> dict[str, Document]:
    items = {}
    for craft, subjects in CRAFTS.items():
        for subject_index, subject in enumerate(subjects):
            for form_index, form in enumerate(FORMS):
                level = LEVELS[(subject_index + form_index) % len(LEVELS)]
                text = f"A {form} about {subject} in {craft}, made for {level}."
                items[f"{craft}/{subject}/{form}"] = Document(f"{form}: {craft}, {subject}", text)
    return items


def _partners(rng: random.Random, by_craft: Mapping[str, list[str]]) -> dict[str, list[str]]:
    crafts = list(by_craft)
    partners = {}
    for number, craft in enumerate(crafts):
        following = by_craft[crafts[(number + 1) % len(crafts)]]
        for item in by_craft[craft]:
            own = rng.sample([other for other in by_craft[craft] if other != item], PARTNERS_OWN)
            partners[item] = own + rng.sample(following, PARTNERS_NEXT)
    return partners


def _history(
    rng: random.Random, of_craft: Mapping[str, _Sampler], anything: _Sampler, partners: Mapping[str, list[str]]
) -> list[str]:
    main = rng.choices(list(of_craft), [1 / rank for rank in range(1, len(of_craft) + 1)])[0]
    length = rng.randint(6, 10)
    history: list[str] = []
    while len(history) < length:
        draw = rng.random()
        if history and draw < 0.7:
            choice = rng.choice(partners[rng.choice(history[-2:])])
        else:
            choice = of_craft[main](rng) if draw < 0.9 else anything(rng)
        if choice not in history:
            history.append(choice)
    return history


def _counts(histories: Sequence[list[str]]) -> dict[str, Counter[str]]:
    """Count the users who took both of two items, `{item: {other item: users}}`."""
    together: dict[str, Counter[str]] = {}
    for history in histories:
        for first, second in combinations(history, 2):
            together.setdefault(first, Counter())[second] += 1
            together.setdefault(second, Counter())[first] += 1
    return together


def _impression(rng: random.Random, excluded: set[str], near: Mapping[str, int], anything: _Sampler) -> list[str]:
    """Sample items that were shown and not taken: by co-occurrence while there are any, then by popularity."""
    chosen: list[str] = []
    likely = {item: count for item, count in sorted(near.items()) if item not in excluded}
    while likely and len(chosen) < BY_COUNTS:
        (drawn,) = rng.choices(list(likely), list(likely.values()))
        del likely[drawn]
        chosen.append(drawn)
    while len(chosen) < BY_COUNTS + BY_POPULARITY:
        drawn = anything(rng)
        if drawn not in excluded and drawn not in chosen:
            chosen.append(drawn)
    return chosen
