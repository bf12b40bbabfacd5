"""Say what the models are for and not for, and what the law asks: one text for README, cards and app."""

RESPONSIBLE_USE = (
    "**For** research, teaching and trying the models on images that you may use. **Not for** judging people "
    "or deciding anything about them: a face shows an expression, not what a person feels. In the European "
    "Union, the AI Act ([Regulation (EU) 2024/1689](https://eur-lex.europa.eu/eli/reg/2024/1689/oj)) has "
    "prohibited inferring emotions at work and in education since 2 February 2025, except for medical or "
    "safety reasons (Article 5(1)(f)), and since 2 August 2026 whoever uses emotion recognition elsewhere "
    "must inform the people exposed to it (Article 50(3)). Such uses are high-risk (Annex III, point 1(c)): "
    "the duties that follow apply from 2 December 2027 instead of 2 August 2026, by the Digital Omnibus on "
    "AI ([Regulation (EU) 2026/1744](https://eur-lex.europa.eu/eli/reg/2026/1744/oj), adopted by Parliament "
    "on 16 June and by the Council on 29 June 2026). This is not legal advice."
)
"""In Markdown, with links to the two regulations."""

NOTICE = (
    "An expression is not a feeling. Do not judge people by it. In the EU, the AI Act prohibits inferring "
    "emotions at work and in education (Article 5(1)(f)); elsewhere you must inform the people exposed to it "
    "(Article 50(3))."
)
"""The short form, for the pages of the app that look at faces."""
