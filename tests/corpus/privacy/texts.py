"""Texts with personal data at known places, and texts full of order numbers without any.

A text is made of sentences with holes; what is put into them is generated in the forms in which
people write it, and its place and kind are noted.
"""

from __future__ import annotations

import importlib
import random
import re
import unicodedata
from typing import NamedTuple

FIRST = {
    "fr": "Jean Hélène Chloé François Zoé Élodie André Aurélie Benoît Céline Gaël Jean-Pierre "
    "Anne-Sophie Inès Noémie Rémi Sébastien Thaïs Léa Hugo Camille Maëlys Loïc Raphaël",
    "de": "Jürgen Käthe Björn Müzeyyen Anna Lukas Sören Günther Jörg Bärbel Karl-Heinz Hans-Peter "
    "Sabine Uwe Zoë Maximilian Friederike Änne Felix Ute Ömer Heike Jens",
    "pt": "João Inês Conceição António Tomás Beatriz Gonçalo Mafalda Simão Luísa Vítor Anabela",
}
LAST = {
    "fr": "Dupont Lefèvre Garçon Bézier Hervé Dupré-Martin Lemaître Nguyễn Châtelain Desprès "
    "Benoist Fauré Poincaré Vasseur Girard Perrault Thévenot d'Alembert Étienne Lévêque",
    "de": "Müller Schäfer Größmann Strauß Weiß-Krüger Jäger Köhler Schröder Bäcker Lindemann "
    "Hoffmeister Öztürk Übelacker Naumann Schulze Friedrich Dürr Böhm Zöllner Kästner",
    "pt": "Conceição Magalhães Simões Araújo Falcão Brandão Estêvão Guimarães Sequeira Azevedo",
}
WORDS = {
    "fr": "bonjour je vous écris car le produit reçu hier ne fonctionne pas comme prévu et "
    "j'aimerais une réponse rapide merci de votre aide cordialement",
    "de": "guten Tag ich schreibe Ihnen weil das Gerät von gestern nicht wie erwartet läuft und "
    "ich hätte gern eine schnelle Antwort vielen Dank für Ihre Hilfe mit freundlichen Grüßen",
    "pt": "bom dia escrevo porque o produto que recebi ontem não funciona como esperado e gostaria "
    "de uma resposta rápida muito obrigado pela ajuda com os melhores cumprimentos",
}
SENTENCES = {
    "fr": {
        "email": "Écrivez-moi à {}.|Mon adresse est {} !|Mail : {}|<{}> a répondu|contact={};",
        "phone": "Rappelez-moi au {}.|Tél. : {}|Mon numéro : {}, le matin.|Vous pouvez me joindre "
        "au {} après 18 h.|Portable {}",
        "ip": "Connexion depuis {}.|IP : {}|L'adresse {} est bloquée.|[{}] erreur 403",
        "card": "J'ai payé avec la carte {}.|Carte bancaire {}, merci.|CB : {}|Mon numéro de carte "
        "est {} et rien ne passe.",
        "iban": "Mon IBAN est {}.|IBAN : {}|Virement sur {} svp|compte {}, au nom de ma mère.",
        "nir": "Mon numéro de sécurité sociale : {}.|NIR {}|N° sécu {} (assuré).",
        "siren": "SIREN {}.|Notre SIREN : {}|RCS Paris {}",
        "siret": "SIRET : {}|Notre siret est {}.",
    },
    "de": {
        "email": "Schreiben Sie an {}.|Meine Adresse lautet {}!|E-Mail: {}|<{}> schrieb|Mail={};",
        "phone": "Rufen Sie mich unter {} an.|Tel.: {}|Meine Handynummer: {}, vormittags.|Ich bin "
        "unter {} erreichbar.|Mobil {}",
        "ip": "Anmeldung von {}.|IP: {}|Die Adresse {} ist gesperrt.|[{}] Fehler 403",
        "card": "Ich habe mit der Karte {} bezahlt.|Kreditkarte {}, danke.|Visa: {}|Meine "
        "Kartennummer ist {} und nichts geht.",
        "iban": "Meine IBAN ist {}.|IBAN: {}|Überweisung auf {} bitte|Konto {}, auf meine Mutter.",
        "idnr": "Meine Steuer-ID lautet {}.|IdNr. {}|Steueridentifikationsnummer: {}.",
        "ausweis": "Personalausweis {}.|Meine Ausweisnummer: {}|Ausweis-Nr. {}",
    },
    "pt": {
        "email": "Escreva para {}.|O meu endereço é {}!|E-mail: {}|<{}> respondeu|mail={};",
        "phone": "Ligue-me para {}.|Telefone: {}|Tlm. {}|O meu número é o {}, de manhã.|Pode ligar "
        "para o {} depois das 18 h.|Contacto: {}|Telemóvel {}",
        "ip": "Ligação de {}.|IP: {}|O endereço {} está bloqueado.|[{}] erro 403",
        "card": "Paguei com o cartão {}.|Visa: {}|Cartão {}, obrigado.",
        "iban": "O meu IBAN é {}.|IBAN: {}|Transferência para {}|conta {}, em nome da mãe.",
        "nif": "NIF {}.|O meu NIF: {}|Contribuinte n.º {}",
    },
}
CLEAN = {
    "fr": "Ma commande {} n'est pas arrivée, le suivi {} ne bouge plus.|Facture {} du {} : {} €."
    "|Références {}, {} et {} en rupture.|Le colis {} (lot {}) est à 3,5 km, version 10.2.1.3 ?"
    "|N° de dossier {} ; ticket {} ; article EAN {}.|Contrat {} signé le {}, montant {}.|Voici {}, {} et {}."
    "|#{} est bloqué, #{} aussi.|id={} code={}",
    "de": "Meine Bestellung {} ist nicht da, die Sendung {} steht still.|Rechnung {} vom {}: {} €."
    "|Artikelnummern {}, {} und {} fehlen.|Das Paket {} (Los {}) wiegt 3,5 kg, Version 10.2.1.3?"
    "|Vorgang {}; Ticket {}; Artikel EAN {}.|Vertrag {} vom {}, Betrag {}.|Die Nummern {} und {} auf dem Zettel."
    "|Kunde {}, Seriennummer {}.|id={} code={}",
    "pt": "A encomenda {} não chegou, o rastreio {} está parado.|Fatura {} de {}: {} €."
    "|Referências {}, {} e {} esgotadas.|O pacote {} (lote {}) pesa 3,5 kg, versão 10.2.1.3?"
    "|Processo {}; ticket {}; artigo EAN {}.|Contrato {} de {}, valor {}.|Os números {} e {} do papel."
    "|Cliente {}, número de série {}.|id={} code={}",
}


class Labelled(NamedTuple):
    text: str
    spans: list[tuple[int, int, str]]


def stdnum(name):
    return importlib.import_module(f"stdnum.{name}")


class Texts:
    """A source of texts in one language, the same for the same seed."""

    def __init__(self, language, seed=0):
        self.language = language
        self.random = random.Random(f"{language}{seed}")

    def labelled(self):
        kinds = list(SENTENCES[self.language])
        parts, spans, size = [], [], 0
        for kind in self.random.choices(kinds, k=self.random.randint(1, 4)):
            value = getattr(self, kind)()
            before, after = self.pick(SENTENCES[self.language][kind], "|").split("{}")
            start = self.words() + self.random.choice([" ", ". ", "\n", " - ", ", "]) + before
            spans.append((size + len(start), size + len(start) + len(value), kind))
            parts += [start, value, after, self.random.choice([" ", "\n"])]
            size = sum(map(len, parts))
        return Labelled("".join([*parts, self.words()]), spans)

    def clean(self):
        sentences = [self.pick(CLEAN[self.language], "|") for _ in range(4)]
        text = " ".join(f"{self.words()}. {sentence}" for sentence in sentences)
        return re.sub(r"\{\}", lambda _: self.order_number(), text)

    def order_number(self):
        digits = self.number(self.random.randint(8, 16))
        form = self.random.randrange(6)
        if form == 0:
            return " ".join(re.findall(r".{1,4}", digits))
        if form == 1:
            return f"{self.pick('CMD FR DE AB INV ORD')}-{digits}"
        if form == 2:
            return f"{self.random.randint(2015, 2026)}-{digits}"
        return digits

    def pick(self, options, separator=" "):
        return self.random.choice(options.split(separator))

    def words(self):
        words = WORDS[self.language].split()
        start = self.random.randrange(len(words) - 5)
        return " ".join(words[start : start + self.random.randint(3, 5)])

    def number(self, count):
        return "".join(self.random.choices("0123456789", k=count))

    def spaced(self, digits, sizes, separators=(" ", " ", "\u00a0", "\u202f", ".", "-", "")):
        separator, parts = self.random.choice(separators), []
        for size in sizes:
            parts.append(digits[:size])
            digits = digits[size:]
        return separator.join(filter(None, [*parts, digits]))

    def name(self):
        return f"{self.pick(FIRST[self.language])} {self.pick(LAST[self.language])}"

    def email(self):
        name = unicodedata.normalize("NFD", self.name().lower())
        first, last = re.sub(r"[^a-z -]", "", name).split(" ", 1)
        user = self.pick(f"{first}.{last} {first}_{last} {first[0]}.{last} {last}{self.number(2)} "
                         f"{first}+{self.pick('shop news')} {first}-{last}")  # fmt: skip
        host = self.pick("gmail.com orange.fr web.de t-online.de mairie-lyon.fr gmx.de acme.co.uk "
                         "sub.exemple-sa.eu example.com müller.de")  # fmt: skip
        email = f"{user}@{host}"
        return self.random.choice([email, email, email.upper(), email.title()])

    def phone(self):
        return getattr(self, f"_phone_{self.language}")()

    def _phone_fr(self):
        digits = self.pick("1 2 3 4 5 6 7 6 7 9") + self.number(8)
        while digits.startswith(("19900", "26191", "35301", "46571", "53649", "63998")):
            digits = "6" + self.number(8)
        head = self.pick("0|0|0|+33 |+33|+33 (0)|0033 |0033|+33(0)|(+33) ", "|")
        rest = self.spaced(digits, (1, 2, 2, 2, 2))
        return head + rest if head != "0" else self.spaced("0" + digits, (2, 2, 2, 2, 2))

    def _phone_de(self):
        area = self.pick("30 40 69 89 221 711 351 4421 151 160 170 171 172 176 152")
        mobile = area[:2] in ("15", "16", "17")
        line = self.random.choice("23456789") + self.number(
            7 if mobile else self.random.randint(5, 7)
        )
        line = line if not mobile or len(area) > 3 else line[:8]
        written = self.random.choice(
            [line, self.spaced(line, (3,), (" ",)), self.spaced(line, (2, 2, 2), (" ",))]
        )
        form = self.random.randrange(6)
        if form == 0:
            return f"({'0' + area}) {written}"
        if form == 1:
            return f"0{area}{self.pick('/ -')}{written}"
        if form == 2:
            return f"+49 {area} {written}"
        if form == 3:
            return f"+49{area}{line}"
        if form == 4:
            return f"0049 {area} {written}"
        return f"0{area} {written}"

    def _phone_pt(self):
        digits = self.pick("91 92 93 96 21 22 253 289")
        digits += self.number(9 - len(digits))
        head = self.pick("||+351 |+351|00351 |(351) |(+351) ", "|")
        sizes = self.random.choice([(3, 3, 3), (2, 3, 2, 2), (9,)])
        return head + self.spaced(digits, sizes, (" ", " ", "\u00a0", "-"))

    def ip(self):
        r = self.random
        if r.random() < 0.3:
            groups = [f"{r.randrange(1, 65536):x}" for _ in range(r.choice([3, 5, 7]))]
            address = (
                "2a01:" + ":".join(groups[:-1]) + ("::" if len(groups) < 7 else ":") + groups[-1]
            )
            return r.choice([address, address.upper()])
        return ".".join(
            map(
                str,
                (r.choice([*range(1, 127), *range(128, 192)]), *(r.randint(1, 254) for _ in "abc")),
            )
        )

    def card(self):
        head, size = self.random.choice(
            [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("4970", 16)]
        )
        body = head + self.number(size - 1 - len(head))
        digits = body + stdnum("luhn").calc_check_digit(body)
        sizes = (4, 6, 5) if size == 15 else (4, 4, 4, 4)
        return self.spaced(digits, sizes, (" ", "\u00a0", "-", ""))

    def iban(self):
        country, size = self.random.choice(
            [
                ("FR", 23),
                ("DE", 18),
                ("FR", 23),
                ("DE", 18),
                ("ES", 20),
                ("IT", 23),
                ("NL", 14),
                ("BE", 12),
                ("GB", 18),
            ]
        )
        body = {"NL": "ABNA", "GB": "WEST", "IT": "X"}.get(country, "")
        body += self.number(size - len(body))
        check = 98 - int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
        iban = f"{country}{check:02}{body}"
        written = self.spaced(iban, (4,) * 8, (" ", " ", "", "\u00a0", "-"))
        return self.random.choice([written, written, written.lower()]).strip()

    def nir(self):
        body = self.pick("1 2") + self.number(2) + f"{self.random.randint(1, 12):02}"
        body += f"{self.random.randint(1, 95):02}".replace("20", "21") + self.number(6)
        return self.spaced(
            body + f"{97 - int(body) % 97:02}", (1, 2, 2, 2, 3, 3, 2), (" ", "", "\u00a0", ".")
        )

    def siren(self):
        body = self.random.choice("3456789") + self.number(7)
        return self.spaced(
            body + stdnum("luhn").calc_check_digit(body), (3, 3, 3), (" ", "", "\u00a0")
        )

    def siret(self):
        body = self.siren().replace(" ", "").replace("\u00a0", "") + "000" + self.number(1)
        return self.spaced(
            body + stdnum("luhn").calc_check_digit(body), (3, 3, 3, 5), (" ", "", "\u00a0")
        )

    def idnr(self):
        digits = self.random.sample("123456789", 9)
        body = "".join([*digits[:5], digits[0], *digits[5:]])[:10]
        body = body[0] + "".join(self.random.sample(body[1:], 9))
        while re.search(r"(\d)\1\1", body) or body[0] == "0":
            body = body[0] + "".join(self.random.sample(body[1:], 9))
        return self.spaced(
            body + stdnum("iso7064.mod_11_10").calc_check_digit(body),
            (2, 3, 3, 3),
            (" ", "", "\u00a0"),
        )

    def nif(self):
        body = self.pick("1 2 5") + self.number(7)
        return self.spaced(
            body + stdnum("pt.nif").calc_check_digit(body), (3, 3, 3), (" ", "", "\u00a0")
        )

    def ausweis(self):
        body = self.pick("L M N P R T V W X Y") + "".join(
            self.random.choices("CFGHJKLMNPRTVWXYZ0123456789", k=8)
        )
        return body + str(sum(int(c, 36) * (7, 3, 1)[i % 3] for i, c in enumerate(body)) % 10)


NATIONAL = ("nir", "siren", "siret", "idnr", "ausweis", "nif")
KINDS = ("email", "iban", "card", "phone", "ip", "national")


def recall(language, count, find, seed=0):
    """Return kind → (found whole, all), and what was missed."""
    texts, figures, missed = Texts(language, seed), dict.fromkeys(KINDS, (0, 0)), []
    for _ in range(count):
        text, spans = texts.labelled()
        found = find(text)
        for start, end, kind in spans:
            group = "national" if kind in NATIONAL else kind
            hit = any(one.start <= start and one.end >= end and one.kind == kind for one in found)
            done, whole = figures[group]
            figures[group] = (done + hit, whole + 1)
            if not hit:
                missed.append((kind, text[max(0, start - 40) : end + 10], found))
    return figures, missed


def tickets(language, count, seed=0):
    """Yield a customer's name and a text that repeats it, with the places where it does."""
    texts = Texts(language, seed)
    for _ in range(count):
        name = texts.name()
        first, last = name.split(" ", 1)
        plain = "".join(
            c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c)
        )
        plain = plain.replace("ß", "ss")
        forms = [name, name.upper(), name.lower(), plain, plain.upper(), plain.lower(), f"{last}, {first}",
                 f"{last.upper()} {first}", first, last, plain.split(" ", 1)[1], f"{first[0]}. {last}",
                 unicodedata.normalize("NFD", name), f"{last}'s"]  # fmt: skip
        parts, spans, size = [], [], 0
        for form in texts.random.sample(forms, 4):
            start = texts.words() + " "
            spans.append((size + len(start), size + len(start) + len(form.removesuffix("'s"))))
            parts += [start, form, texts.random.choice([", ", ". ", " ", "\n"])]
            size = sum(map(len, parts))
        yield name, "".join([*parts, texts.words()]), spans
