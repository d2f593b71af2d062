"""Detectors: what they find, what they leave, and that no text makes them slow."""

from __future__ import annotations

import time

import pytest

from finetune.corpus.privacy.detectors import find
from tests.corpus.privacy.texts import Texts, recall

FOUND = {
    "email": ["Mail <zoé.l'heureux@müller.de>", "x=A.B@SUB.ACME.CO.UK;", "mailto:a+b@acme.fr?x"],
    "phone": ["+33612345678", "+33 (0)6 12 34 56 78", "(+49) 30 1234567", "0033 1 42 68 53 00",
              "06.12.34.56.78", "01 42 68 53 00 75001 Paris", "030/12 34 56-78", "(0151) 23456789",
              "0151 2345 6789", "Tel. 612 34 56 78", "Móvil: 612 345 678", "zadzwoń 512 345 678",
              "Chiama 347 123 4567", "06-12345678", "0470/12.34.56", "telemóvel 912 345 678",
              "020 7123 4567", "+44 7911 123456", "+32 470 12 34 56", "+351 912 345 678",
              "(351) 912 345 678", "(351) 212345678", "Tlm. 912345678", "meu número é o 912 345 678",
              "pode ligar 212 345 678", "(34) 612 345 678"],
    "ip": ["82.64.12.7:8080", "http://10.1.2.3/x", "[2a01:e0a:1:2::5]", "2A01:E0A:0:1:2:3:4:5"],
    "card": ["carte 4111111111111111", "cartão 4111111111111111", "kaart: 4111111111111111", "5105 1051 0510 5100", "Amex 3782-822463-10005"],
    "iban": ["fr7630006000011234567890189", "DE89 3704 0044 0532 0130 00", "GB82 WEST 1234 5698 7654 32",
             "NL91ABNA0417164300", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"],
    "nir": ["2 95 10 99 126 111 93", "253072A07300443"],
    "vat": ["FR40303265045", "DE 136695976", "NL4495445B01 NL004495445B01", "ESB58378431", "BE0428759497"],
    "siren": ["SIREN 732 829 320"], "siret": ["732 829 320 00074", "siret : 73282932000074"],
    "idnr": ["Steuer-ID: 36574261809", "36 574 261 809"], "ausweis": ["Personalausweis: L01X00T471"],
    "dni": ["DNI 54362315K"], "nie": ["NIE X-2482300W"], "codice_fiscale": ["RSSMRA85T10A562S"],
    "bsn": ["BSN 111222333"], "pesel": ["PESEL 44051401359"], "rijksregister": ["85.07.30-033.28"],
    "nif": ["NIF 501442600"], "cc": ["00000000 0 ZZ4"], "nhs": ["NHS no. 943 476 5919"],
    "nino": ["NINO: AB 12 34 56 C"], "iva": ["Partita IVA 00743110157"],
    "birth_date": ["né le 12/03/1985", "Geburtsdatum: 1985-03-12", "geboren am 3. März 1985",
                   "born on March 3rd, 1985", "nacida el 3 de marzo de 1985", "nato il 03.04.1985"],
    "address": ["12 bis, rue de la Paix, 75002 Paris", "Musterstraße 12a, 10115 Berlin",
                "Calle de Alcalá 45, 28014 Madrid", "Via Roma 12, 00184 Roma",
                "Keizersgracht 123, 1015 CJ Amsterdam", "221B Baker Street, London NW1 6XE"],
    "secret": ["sk-abcDEF1234567890abcDEF", "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
               "AKIAIOSFODNN7EXAMPLE", "postgres://u:hunter22@db:5432/x", "password=Sommer2024!",
               "Authorization: Bearer abcdef1234567890xyz", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP",
               "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"],
}  # fmt: skip
LEFT = [
    "jean@acme.invalid", "06 39 98 12 34", "+49 30 23125 123", "07700 900123", "192.0.2.7",
    "2001:db8::1:2", "FR76 3000 6000 0112 3456 7890 188", "4111 1111 1111 1112", "né le 3/4/1900",
    "v1.2.3.4", "Chrome/120.0.6099.10", "version 10.2.1.3",
    "versão 10.2.1.3", "Versione: 10.2.1.3", "versión 10.2.1.3", "firmware 10.2.1.3", "std::vector", "12:30:45", "::1",
    "01.02.2024 10:30", "2024-01-02 12:30:45", "commande 0612345678", "suivi 4539578763621486",
    "EAN 4006381333931", "123456782", "Bestellnummer 0151 2345 6789", "le 3/4/1985", "3,14159265358979",
    "@font-face{}", "a @ b.fr", "git@", "12 rue de la Paix", "password: [SECRET]", "1 000 000 000",
    "encomenda (351) 912345678", "fatura 912345678", "(351) 005 123 456", "(12) 912345678", "f(351) 912345678",
    "(351) 912 345 6789", "artigos (351) 912345678, 212345678",
]  # fmt: skip
WORST = {
    "digits": "1", "spaced": "1 ", "nines": "123456782 ", "sixteens": "4111111111111112 ", "pairs": "06 39 98 12 34 ",
    "phones": "+336 ", "codes": "(351) 9", "zeros": "0151 ", "dots": "1.1.1.", "colons": "a1:", "ats": "a@", "mails": "a@b.c1 ",
    "locals": "a" * 64 + "@", "hyphens": "a-a.@", "ibans": "FR76 3000 ", "streets": "1 rue ", "weg": "Aweg 1 ",
    "born": "né le ", "keys": "sk-a1", "long key": "eyJ", "blocks": "-----BEGIN PRIVATE KEY-----", "urls": "://a:b1",
    "passwords": "password=", "letters": "aA1", "braces": '{"a1":', "quotes": '["\\', "postcodes": "12345 Aa ",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"), [(k, text) for k, texts in FOUND.items() for text in texts]
)
def test_personal_data_are_found(kind, text):
    assert kind in {span.kind for span in find(f"Bonjour, {text} merci")}


@pytest.mark.parametrize("text", LEFT)
def test_what_belongs_to_nobody_is_left(text):
    assert find(f"Bonjour {text} merci") == []


@pytest.mark.parametrize("language", ["fr", "de", "pt"])
def test_recall_on_labelled_texts(language):
    figures, _ = recall(language, 400, find, seed=11)
    for kind, (found, whole) in figures.items():
        assert whole > 50
        assert found / whole >= (0.99 if kind in ("email", "iban", "card") else 0.97), kind


@pytest.mark.parametrize("language", ["fr", "de", "pt"])
def test_order_numbers_are_left(language):
    texts = Texts(language, seed=12)
    assert sum(bool(find(texts.clean())) for _ in range(300)) <= 3


@pytest.mark.parametrize("unit", WORST.values(), ids=WORST)
def test_no_text_makes_a_detector_slow(unit):
    # 5 s a MB for all of the thirty detectors together.
    text = "1" + unit * (250_000 // len(unit))
    started = time.process_time()
    find(text)
    assert time.process_time() - started < 1.25
