"""Made-up answers of many kinds: prose that is hard to part into sentences, Markdown, JSON, quotes, capitals, 23 languages."""
import json

LANGUAGES = "hi kn mr vi ko sw de pa fa ru bg pt gu te it ar ta fi ur th ne bn en".split()

# Two or more sentences a language, written for this file.
SAMPLES = {
    "hi": "आज सुबह बारिश हुई और सड़कें भीग गईं। मेरी बहन बाज़ार से ताज़ी सब्ज़ियाँ लेकर आई है। क्या आप हमारे साथ खाना खाएँगे?",
    "kn": "ಇಂದು ಬೆಳಿಗ್ಗೆ ಮಳೆ ಬಂದು ರಸ್ತೆಗಳು ಒದ್ದೆಯಾಗಿವೆ. ನನ್ನ ತಂಗಿ ಮಾರುಕಟ್ಟೆಯಿಂದ ತರಕಾರಿ ತಂದಿದ್ದಾಳೆ. ನೀವು ನಮ್ಮ ಜೊತೆ ಊಟ ಮಾಡುತ್ತೀರಾ?",
    "mr": "आज सकाळी पाऊस पडला आणि रस्ते ओले झाले. माझ्या बहिणीने बाजारातून ताजी भाजी आणली आहे. तुम्ही आमच्यासोबत जेवायला येणार का?",
    "vi": "Sáng nay trời mưa và đường phố rất ướt. Chị tôi vừa mua rau tươi ở chợ về. Bạn có muốn ăn cơm cùng chúng tôi không?",
    "ko": "오늘 아침에 비가 와서 길이 젖었습니다. 누나가 시장에서 신선한 채소를 사 왔어요. 우리와 함께 식사하시겠어요?",
    "sw": "Leo asubuhi mvua ilinyesha na barabara zikawa na maji mengi. Dada yangu ameleta mboga kutoka sokoni. Je, mtakula chakula pamoja nasi?",
    "de": "Heute Morgen hat es geregnet und die Straßen sind nass. Meine Schwester hat frisches Gemüse vom Markt mitgebracht. Möchten Sie mit uns essen?",
    "pa": "ਅੱਜ ਸਵੇਰੇ ਮੀਂਹ ਪਿਆ ਅਤੇ ਸੜਕਾਂ ਗਿੱਲੀਆਂ ਹੋ ਗਈਆਂ। ਮੇਰੀ ਭੈਣ ਬਾਜ਼ਾਰ ਤੋਂ ਤਾਜ਼ੀਆਂ ਸਬਜ਼ੀਆਂ ਲਿਆਈ ਹੈ। ਕੀ ਤੁਸੀਂ ਸਾਡੇ ਨਾਲ ਖਾਣਾ ਖਾਓਗੇ?",
    "fa": "امروز صبح باران بارید و خیابان‌ها خیس شد. خواهرم از بازار سبزی تازه خریده است. آیا با ما غذا می‌خورید؟",
    "ru": "Сегодня утром шёл дождь, и улицы стали мокрыми. Моя сестра принесла с рынка свежие овощи. Вы будете обедать вместе с нами?",
    "bg": "Тази сутрин валя дъжд и улиците са мокри. Сестра ми донесе пресни зеленчуци от пазара. Искате ли да обядвате с нас?",
    "pt": "Hoje de manhã choveu e as ruas ficaram molhadas. Minha irmã trouxe legumes frescos da feira. Você quer almoçar conosco?",
    "gu": "આજે સવારે વરસાદ પડ્યો અને રસ્તા ભીના થઈ ગયા. મારી બહેન બજારમાંથી તાજાં શાકભાજી લાવી છે. શું તમે અમારી સાથે જમશો?",
    "te": "ఈ రోజు ఉదయం వర్షం పడి రోడ్లు తడిసిపోయాయి. మా చెల్లి మార్కెట్ నుండి తాజా కూరగాయలు తెచ్చింది. మీరు మాతో భోజనం చేస్తారా?",
    "it": "Stamattina ha piovuto e le strade sono bagnate. Mia sorella ha portato verdure fresche dal mercato. Volete pranzare con noi?",
    "ar": "هطل المطر هذا الصباح وأصبحت الشوارع مبللة. أحضرت أختي خضروات طازجة من السوق. هل تريدون تناول الطعام معنا؟",
    "ta": "இன்று காலை மழை பெய்து சாலைகள் நனைந்தன. என் தங்கை சந்தையில் இருந்து காய்கறிகள் வாங்கி வந்தாள். நீங்கள் எங்களுடன் சாப்பிடுவீர்களா?",
    "fi": "Tänä aamuna satoi vettä ja kadut ovat märkiä. Siskoni toi torilta tuoreita vihanneksia. Haluatteko syödä meidän kanssamme?",
    "ur": "آج صبح بارش ہوئی اور سڑکیں گیلی ہو گئیں۔ میری بہن بازار سے تازہ سبزیاں لے کر آئی ہے۔ کیا آپ ہمارے ساتھ کھانا کھائیں گے؟",
    "th": "เช้านี้ฝนตกและถนนเปียกมาก พี่สาวของฉันซื้อผักสดมาจากตลาด คุณจะกินข้าวกับพวกเราไหม",
    "ne": "आज बिहान पानी पर्‍यो र सडकहरू भिजे। मेरी बहिनीले बजारबाट ताजा तरकारी ल्याएकी छिन्। के तपाईं हामीसँग खाना खानुहुन्छ?",
    "bn": "আজ সকালে বৃষ্টি হয়েছে আর রাস্তাগুলো ভিজে গেছে। আমার বোন বাজার থেকে তাজা সবজি এনেছে। আপনি কি আমাদের সঙ্গে খাবেন?",
}

WORDS = """the a river old quiet light morning people walk through and find letters from someone who never came back we
they remember how small town looked before new bridge was built but nothing seems to change here for long because every
summer brings visitors with cameras questions kind smiles children run along water while their parents drink coffee under
trees it is easy to forget that winter can be hard yet lovely place where stories begin again""".split()
PROSE = """The bus stops twice before it reaches the harbour. My neighbour grows beans and tomatoes behind the garage. We should
leave early if the road is still closed. Nobody had asked the librarian where the old maps were kept. Her first answer was
short but friendly. A good lamp is worth more than a large desk. They painted the kitchen yellow and the hall white. You can
find the recipe on the last page of the book. It rained for three days and then the wind turned. This plan saves money and gives
the team more time to test. He keeps his tools in a wooden box under the stairs. Please send the report before noon so that I can
read it on the train. The children laughed when the dog stole the bread. Every summer the town opens its gardens to visitors. I have
never seen such a clear night in the mountains. Learning a language takes patience and a little courage. The second chapter tells
how the two brothers lost their farm. Most people drink their coffee without sugar these days. When the music stopped we could
hear the river again. There is no better place to think than an empty beach.""".replace("\n", " ").split(". ")
NAMES = "Smith Rivera Okafor Tanaka Müller O'Neill Zoë Paris Tokyo Lake NASA UNESCO Élodie García".split()
STARTS = """The He She It They We I But However This That There In On When If As For And So You My Their Many Some Most
What Why How Please Then Thus Also Although Since While After Before Here Now Today Well Yes No Perhaps Maybe Note Our
Your These Those Dogs Rivers Bridges Visitors Children Tokyo Paris Smith""".split()
ENDS = [".", ".", ".", ".", "!", "?", "...", "…", ". ", "?!", "!!!", '."', '".', ".)", ").", '!"', ".”", "”.", ".'", " .", "。"]
HARD = """Dr.|Mr.|Mrs.|Prof.|St.|Jr.|Inc.|Co.|Corp.|U.S.|U.K.|D.C.|N.Y.|a.m.|p.m.|e.g.|i.e.|etc.|vs.|No.|no.|Jan.|Dec.|Ph.D.|J.|B.|C.|J.R.|A.B.
3.14|2.|10.|1999.|$5.00|1,000|v1.2.3|www.example.com|https://example.org/a.b?c=d|me@site.org|...|. . .|--|---|(see p. 4)|Fig.|approx.|Mt.|Gen.|Sen.
well-known|WELL-KNOWN|self-made|don't|CAN'T|cannot|CANNOT|I'm|it's|IT'S|gonna|'tis|'TWAS|O'CLOCK|A.I.|AI|USA|X-ray|C++|C#|AT&T|R&D|#TAG|@home|50%|snake_case|naïve|café|ÉCOLE
straße|STRASSE|ﬁne|Ⅷ|²|½|٣|ǅ|ª|ſun|kiSſ|İstanbul|ıspanak|Kelvin|“quoted”|‘single’|«guillemets»|"plain"|'apostrophes'|(brackets)|[note]|{x}|<b>|—|–|🙂|👩‍👩‍👧|한국|日本語|e\u0301|नमस्ते|ΑΣ|ΟΔΟΣ""".replace("\n", "|").split("|")
BLANKS = [" "] * 30 + ["  ", "\n", "\t", "\u00a0", "\u2003", "\r\n", "\u2028", "\x1c", "\u200b", "\ufeff", "\x85", "\v"]
EDGES = [""] * 12 + [" ", "\n", "\n\n", "\t", "\u00a0", '"', "'", "\ufeff", "\x1f", "*", "**", "\u200b"]


class Texts:
    def __init__(self, rng):
        self.rng = rng

    def word(self):
        r = self.rng.random()
        if r < 0.12:
            return self.rng.choice(HARD)
        word = self.rng.choice(NAMES if r < 0.18 else WORDS)
        return word.upper() if self.rng.random() < 0.03 else word

    def sentence(self):
        words = [self.rng.choice(STARTS)] + [self.word() for _ in range(self.rng.randint(1, 14))]
        if self.rng.random() < 0.2:
            words[0] = words[0].lower()
        text = words[0]
        for word in words[1:]:
            text += self.rng.choice([",", ";", ":"] + [""] * 17) + self.rng.choice(BLANKS) + word
        return text + self.rng.choice(ENDS)

    def prose(self, low=1, high=6):
        return self.rng.choice([" ", " ", " ", "  ", "\n"]).join(self.sentence() for _ in range(self.rng.randint(low, high)))

    def bullets(self):
        mark = self.rng.choice(["* ", "- ", "*", "-", "** ", "  * ", "\t- ", "• ", "1. ", "*\n", "--- "])
        return "\n".join(mark + self.sentence() for _ in range(self.rng.randint(1, 5)))

    def highlights(self):
        span = lambda: self.rng.choice(["*{}*", "**{}**", "***{}***", "* {} *", "_{}_", "*{}\n*", "**{}*", "****", "* *"]).format(self.word())
        return " ".join(self.rng.choice([span(), self.word()]) for _ in range(self.rng.randint(2, 9)))

    def json(self):
        value = {self.word(): self.rng.choice([1, 2.5, True, None, "a\u0301 \"b\"", [1, {"x": []}], float("nan"), float("inf")]) for _ in range(3)}
        text = json.dumps(value, ensure_ascii=self.rng.random() < 0.5, indent=self.rng.choice([None, 2]))
        text = self.rng.choice([text, text, text, text[:-1], text + ",", text.replace('"', "'"), "[1,]", "01", '"a\nb"', "12", "-Infinity", "\u00a0{}", "1" * 4400, "{} {}", '"\\u12"', "nan", "[NaN, -1e5]"])
        return self.rng.choice(["{}", "```json\n{}\n```", "```JSON{}```", "```\n{}\n```", "```Json\n{}", "```python\n{}\n```", "Here: {}"]).replace("{}", text, 1)

    def sections(self):
        name = self.rng.choice(["SECTION", "Section", "Day", "PARAGRAPH"])
        form = self.rng.choice(["{} {}", "{}{}", "{} {}:", "**{} {}**", "{}\n{}", "{} {}.", "{}  {}", "{} X{}"])
        return "\n\n".join(form.format(name, i + 1) + "\n" + self.prose(1, 2) for i in range(self.rng.randint(1, 4)))

    def split(self):
        mark = self.rng.choice(["***", "\n***\n", "\n\n***\n\n", " *** ", "******", "\n******\n", "****", "* * *", "\n\n", "\n\n\n", "\n \n"])
        parts = [self.prose(1, 2) for _ in range(self.rng.randint(1, 4))]
        if self.rng.random() < 0.3:
            parts.insert(self.rng.randrange(len(parts) + 1), self.rng.choice(["", " ", "\n"]))
        if self.rng.random() < 0.1:
            parts = [parts[0], parts[0]]
        return mark.join(parts)

    def extras(self):
        return self.rng.choice(
            ["<<A Title>>", "<< >>", "<<<<x>>>>", "<<a\nb>>", "<a>", "P.S. Write soon.", "p. s. hm", "P.P.S", "P. P. S. x", "PS: no", "p.p.s.", "m.p.s.", "[name] [address]", "[a\nb]", "[[x]]", "[]",
             "My answer is yes.", "My answer is no", "my answer is maybe.", "My answer is maybe.", "Any other questions?", 'Any other questions?"', "Is there anything else I can help with?", "Write a riddle", "# Heading", "| a | b |\n|---|---|"]
        )

    def foreign(self):
        sample = self.rng.choice([*SAMPLES.values()])
        return sample if self.rng.random() < 0.7 else sample + " " + self.sentence()

    def english(self):
        plain = " ".join(sentence.rstrip(".") + "." for sentence in self.rng.sample(PROSE, self.rng.randint(1, 6)))
        return getattr(plain, self.rng.choice(["lower", "upper", "capitalize"]))()

    def text(self):
        makers = [self.prose, self.prose, self.prose, self.bullets, self.highlights, self.json, self.sections, self.split, self.split, self.extras, self.foreign, self.english]
        parts = [self.rng.choice(makers)() for _ in range(self.rng.choice([1, 1, 1, 2, 2, 3]))]
        text = self.rng.choice(["\n\n", "\n", " "]).join(parts)
        text = self.rng.choice([text] * 12 + [text.lower(), text.upper(), text.title(), f'"{text}"', f"'{text}'", f"```\n{text}\n```"])
        return self.rng.choice(EDGES) + text + self.rng.choice(EDGES)

    def answer(self, row):
        """An answer that keeps most instructions of an official record, with a line around it now and then."""
        text = self.rng.choice([self.english, self.english, self.prose, self.text])()
        for name, kwargs in zip(row["instruction_id_list"], row["kwargs"]):
            if self.rng.random() < 0.8:
                text = self.keep(name, kwargs, text)
        text = self.rng.choice(["", "", "", "Sure, here it is:\n", "**Answer**\n"]) + text
        return text + self.rng.choice(["", "", "", "\n\nLet me know!", "\n"])

    def keep(self, name, kwargs, text):
        match name:
            case "punctuation:no_comma":
                return text.replace(",", "")
            case "length_constraints:number_words":
                return text + " " + " ".join(self.english() for _ in range(kwargs["num_words"] // 8)) if kwargs["relation"] == "at least" else " ".join(text.split()[:20])
            case "length_constraints:number_sentences":
                sentences = [self.english().capitalize() for _ in range(kwargs["num_sentences"])]
                return text + " " + " ".join(sentences) if kwargs["relation"] == "at least" else text[:80]
            case "length_constraints:number_paragraphs":
                return "\n***\n".join([text.replace("***", "")] + [self.prose(1, 2) for _ in range(kwargs["num_paragraphs"] - 1)])
            case "length_constraints:nth_paragraph_first_word":
                parts = [self.english() for _ in range(kwargs["num_paragraphs"])]
                parts[kwargs["nth_paragraph"] - 1] = f'"{kwargs["first_word"]}", {self.english()}'
                return "\n\n".join(parts)
            case "keywords:existence":
                return text + " " + " ".join(kwargs["keywords"]).upper()
            case "keywords:frequency":
                return text + f" {kwargs['keyword']}." * kwargs["frequency"]
            case "keywords:letter_frequency":
                return text + kwargs["letter"] * kwargs["let_frequency"]
            case "change_case:english_lowercase":
                return text.lower()
            case "change_case:english_capital":
                return text.upper()
            case "change_case:capital_word_frequency":
                return text + " WORD" * kwargs["capital_frequency"]
            case "language:response_language":
                return SAMPLES[kwargs["language"]]
            case "startend:quotation":
                return f'"{text}"'
            case "startend:end_checker":
                return text + " " + kwargs["end_phrase"]
            case "combination:repeat_prompt":
                return kwargs["prompt_to_repeat"] + "\n" + text
            case "combination:two_responses":
                return text + "\n******\n" + self.prose()
            case "detectable_content:number_placeholders":
                return text + " [name]" * kwargs["num_placeholders"]
            case "detectable_content:postscript":
                return text + "\n" + kwargs["postscript_marker"] + " " + self.sentence()
            case "detectable_format:title":
                return "<<Title>>\n" + text
            case "detectable_format:number_highlighted_sections":
                return text + "\n*light* and" * kwargs["num_highlights"]
            case "detectable_format:number_bullet_lists":
                return text.replace("-", "").replace("*", "") + "\n* point" * kwargs["num_bullets"]
            case "detectable_format:multiple_sections":
                return text + "".join(f"\n{kwargs['section_spliter']} {i + 1}\n{self.sentence()}" for i in range(kwargs["num_sections"]))
            case "detectable_format:json_format":
                return "```json\n" + json.dumps({"text": text}) + "\n```"
            case "detectable_format:constrained_response":
                return self.rng.choice(["My answer is yes.", "My answer is no.", "My answer is maybe."])
        return text
