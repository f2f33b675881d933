"""Whether two tokenizers do the same: compared by their token ids on probe texts, not by their vocabularies alone.

Tokenizers with one vocabulary may differ in normalization (lower-casing, accents), pre-tokenization, special tokens or
prompt. A model that gets the ids of the other tokenizer then reads tokens that it was not trained on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from hfcompress.models.prompts import encode_pairs

PROBES = (
    "",
    "a",
    "How to sort a LIST in place?",
    "McDonald's iPhone USA",
    "café naïve Ångström façade über",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "Straße STRASSE ẞ",
    "İstanbul ılık I i",
    "Ελληνικά ΟΔΟΣ ς",
    "Привет МИР ёлка й",
    "ﬁnancial ½ ² ﷺ Ⅷ",
    "東京都 中文文本 漢字",
    "ひらがな カタカナ ｶﾀｶﾅ",
    "한국어 텍스트",
    "ภาษาไทย",
    "مَرْحَبًا بالعالم",
    "שָׁלוֹם עולם",
    "हिन्दी में पाठ",
    "0 12 345 6789 1,234.56 3.14e-10 １２３ ٣٤٥",
    "a.b,c;d:e!f?g-h_i/j\\k(l)[m]{n}<o>'p'\"q\"`r`~s@t#u$v%w^x&y*z+1=2|3",
    "“quoted” ‘single’ — – … «guillemets» 。、！",
    "👍 👩‍👩‍👧 🇩🇪 ☺️ 👋🏽",
    "  leading  and   double  ",
    "tab\tnew\nline\r\nend",
    "no\u00a0break\u2003em\u3000wide\u2028line",
    "nul\x00bell\x07escape\x1b\x7fdelete",
    "zero\u200bwidth\u200djoin\u00adsoft\ufeffmark\u202eright",
    "\ufffd \ue000 \U0010fffd",
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <pad> <mask>",
    "##ing ▁word Ġword",
    "https://example.org/a?b=c#d me@example.org",
    "x" * 300,
    "snake_case camelCase kebab-case HTTPServer",
)
WORDS = 256  # of the vocabulary, which are probed in other spellings


def probe_texts(vocabulary: Iterable[str]) -> list[str]:
    """Texts in which tokenizers may differ: `PROBES`, and words of a vocabulary in other case and with accents."""
    words = sorted({word for token in vocabulary if (word := token.lstrip("#▁Ġ")).isalpha()})
    chosen = words[:: max(1, len(words) // WORDS)]
    accented = (unicodedata.normalize("NFC", f"{word[0]}\u0301{word[1:]}\u0308") for word in chosen)
    spelt = (
        f"{word} {word.upper()} {word.title()} {other} {word}2" for word, other in zip(chosen, accented, strict=True)
    )
    return [*PROBES, *spelt]


def difference(ours: Any, theirs: Any, pairs: Sequence[tuple[str, str]] = ()) -> str:
    """How two tokenizers differ, on probe texts and on given pairs; empty if they do not.

    Args:
        ours: A tokenizer.
        theirs: Another one.
        pairs: Pairs of query and document like those that both are to encode.

    Returns:
        A token, or a text, with its ids in both.
    """
    our_ids, their_ids = ours.get_vocab(), theirs.get_vocab()
    if our_ids != their_ids:
        token = next(token for token in {**their_ids, **our_ids} if our_ids.get(token) != their_ids.get(token))
        return f"the token {token!r} is {our_ids.get(token)} and {their_ids.get(token)}"
    probed = [*pairs, *((text, text) for text in probe_texts(our_ids))]
    texts = [list(column) for column in zip(*probed, strict=True)]
    rows = [encode_pairs(each, *texts, verbose=False)["input_ids"] for each in (ours, theirs)]
    for (query, document), first, second in zip(probed, *rows, strict=True):
        if first != second:
            start = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second))
            part = slice(max(0, start - 2), start + 5)  # around the first difference
            both = ((ours, first[part]), (theirs, second[part]))
            names = (" ".join(map(str, each.convert_ids_to_tokens(ids))) for each, ids in both)
            text = query if query == document else f"{query[:80]} | {document[:80]}"
            return f"{text[:160]!r} is read as ... {' ... and as ... '.join(names)} ..."
    return ""
