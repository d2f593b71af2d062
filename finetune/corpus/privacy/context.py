"""Context: what the words before a number say that it is.

A number of nine digits is a tax number, a phone number or an order number. Where its shape and
its checksum do not settle that, the nearest word that says something does.
"""

from __future__ import annotations

import functools
import re

_BEFORE = 96  # characters looked at before a number
_AFTER = 24
_WORD = re.compile(r"[^\W\d_]{2,}")
_LONG = re.compile(r"\d{8,}")
_MINE = re.compile(  # `mon numéro est le 06…`, but not `mon numéro de commande 06…`
    r"(?i)\b(?:mon|notre|son|meine|unsere|my|mi|mio|mijn|meu|nosso)[ \u00a0]"
    r"(?:n°|n[uú]m[ée]ro|nummer|number)"
    r"(?:[ \u00a0](?:est|ist|lautet|is|es|le|la|die|the|è|il|é|o)\b){0,2}"
    r"[ \u00a0]?:?[ \u00a0]?\(?\Z"
)

# Stems, in lower case; a word has the topic of the stem that it begins with.
_STEMS: dict[str, str] = {
    "order": (
        "command order bestell auftrag rechnung factur invoice fattur colis suivi tracking sendung "
        "paket artikel article ref réf refer référ dossier ticket vorgang vertrag "
        "contrat contract devis lot "
        "série serie serial pedido ordin zamów encomend sku ean isbn gtin "
        "barcode transakt transact buchung réserv reserv booking livrais liefer expédi versand "
        "shipment parcel kundennummer kundennr aktenzeichen angebot quote "
        "fatur rastrei artigo pacot lote remessa recibo albarán bolla "
        "zending pakket bestelling faktur przesył paczk stück pièces "
        "montant betrag amount importe importo bedrag kwota total summe"
    ),
    "phone": (
        "tel tél telef télép phone mobil portable fax appel rappel appelez joindre joign contact "
        "rufen ruf anruf erreich handy festnetz durchwahl sms whatsapp call dial reach ring "
        "llam llám móvil celular chiam cellulare bel bellen zadzwo dzwo komórk"
        " ligue liga ligar telem telm tlm tlf contat chama cell gsm standard"
    ),
    "card": (
        "carte card cb karte kreditkart visa mastercard amex american maestro diners discover jcb "
        "tarjeta carta creditcard pay payé paie paiement zahl bezahl cvv cvc pan débit "
        "debit crédit credit kredit cartão cartões kaart karta karty kartą kartę pagu pagam pagat "
        "betaa zapłac płatn"
    ),
    "siren": "siren siret rcs siège immatricul",
    "idnr": "steuer idnr identifikations tin steuerid",
    "bsn": "bsn burgerservice sofi",
    "pesel": "pesel",
    "nif": "nif contribuinte fiscal",
    "nhs": "nhs",
    "rijksregister": "rijksregister national registre nationalregister insz niss",
    "iva": "iva partita piva",
    "nir": "nir sécu sécurité insee",
}
_TOPICS = {
    stem.replace("_", " "): topic for topic, stems in _STEMS.items() for stem in stems.split()
}
_LENGTHS = sorted({len(stem) for stem in _TOPICS}, reverse=True)


def topic_before(text: str, start: int) -> str | None:
    """Return the topic of the nearest word before a place that has one.

    Example:
        >>> topic_before("Commande 123, rappelez-moi au 0612345678", 30)
        'phone'
    """
    if _MINE.search(text, max(0, start - 32), start):
        return "phone"
    for word in reversed(_WORD.findall(text, max(0, start - _BEFORE), start)):
        topic = _topic(word)
        if topic:
            return topic
    return None


def topics_after(text: str, end: int) -> set[str]:
    """Return the topics of the words that follow a place."""
    words = _WORD.findall(text, end, end + _AFTER)
    return {topic for word in words if (topic := _topic(word))}


def topics_of(text: str) -> set[str]:
    """Return what detectors may need that a text has: the topics of its words, or nothing."""
    topics = {_topic(word) for word in _WORD.findall(text)}
    return {topic for topic in topics if topic} | {"nothing", "no-order"}


def lists_numbers(text: str) -> bool:
    """Tell whether a text is about orders or has several long numbers that could be of anything."""
    if len(_LONG.findall(text)) > 1:
        return True
    return any(_topic(word) == "order" for word in _WORD.findall(text))


@functools.lru_cache(maxsize=2**15)
def _topic(word: str) -> str | None:
    lower = word.lower()
    for length in _LENGTHS:
        topic = _TOPICS.get(lower[:length])
        # Short stems are whole words: `tel` is no start of `telle`.
        if topic and (length > 4 or len(lower) - length <= (0 if length < 4 else 3)):
            return topic
    return None
