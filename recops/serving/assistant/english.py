"""The English that the rules of understanding know: word lists, and patterns over a question in lower case.

Another language is another file of this kind; what the rules do with it stands in `understanding.py`, `mentions.py`.
"""

import re


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def pattern(*alternatives: str, before: str = r"\b", after: str = r"\b") -> re.Pattern[str]:
    """Any of the alternatives, as whole words."""
    return re.compile(f"{before}(?:{'|'.join(alternatives)}){after}")


ARTICLES = words("the a an le la les l il lo gli i el los las un une una der die das ein eine")
GENERIC = words(
    """film films movie movies book books novel novels item items thing things stuff product products article articles
    story stories news song songs music series show shows one ones title titles kind kinds sort sorts type types genre
    genres category categories please"""
)
# Words that ask, and say nothing of what for.
FILLER = GENERIC | words(
    """a about after again all already also am an and another any anything are around as at be because been before being
    best better between bored both but buy by came can cannot cheers come could did do does doing done dont either
    else enjoy even ever every fan favorite favourite few find for from get give given go goes good got great had
    happen happened happening has have having he hello her here hers hey hi him his how i id idea ideas if ill im
    in into is it items its ive just know let like liked list listen look looking lot love loved made make many may
    maybe me might more most much must my need needs neither next no none nor not nothing now of off ok okay on
    once only onto or other others our out over own per perhaps popular rather read really recommend recommendation
    recommendations recommended released same say see seen sell shall she should shown similar since so some
    somebody someone something such suggest suggestion suggestions sure surprise tell than thank thanks that thats
    the their them then there these they this those though through to today told tonight too try under until up
    upon us very want wanted was watch way we well were what whats when where whether which while who whom whose
    why will wish with within without would year years yet you your yours"""
)
# After these a word such as 'music' is what an item is about.
TOPIC_FOLLOWS = words("about with featuring involving without")
MAY_SAY = GENERIC | words("love")  # of what only asks elsewhere
# What a number counts that is neither items nor money.
UNITS = (
    r"minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?|pages?|people|persons?|players?|pieces?|cm|mm|m|km|kg|g|ml|l|"
    r"inch(?:es)?|stars?|%|percent"
)
# Names of categories that say nothing when they stand in a sentence.
EMPTY_NAMES = (FILLER - words("music")) | words("best good great new top")
# A title of these words alone is none that a sentence can name.
WEAK = words(
    """a an the i me my we you it its is are was be of to in on at for and or not no that this these those one ones
    something anything"""
)
# After these a title, or what follows a 'not', has ended.
BOUNDARY = words(
    """but and or from in under over with without only not please for that which who before after since between of to
    made released published cheaper than below above at on by is are was were except more less also too nor no as then
    this last yesterday today around about"""
)
ENDS_NEGATION = BOUNDARY | words("something anything a i show give maybe ideally")
# What may stand after 'not' without taking anything away; and 'not too long', a matter of degree.
HARMLESS = words(
    """only sure just necessarily really know mind matter much bad thing many yet all always long short longer again
    idea problem worries thanks thank old new older newer more less than over under before after while even"""
)
ASKS_OF_TOPIC = re.compile(r"\b(?:without|about|featuring|involving|with)\b")  # 'without love', but not 'no films'
OF_DEGREE = re.compile(r"(?:too|very|so|that|all that)\s+(?P<what>\w+)")
ORDINALS = {
    word: place
    for place, word in enumerate(
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    )
}

_NEVER = r"(?:do not|does not|did not|don't|doesn't|didn't|dont|didnt|never|can't|cannot)\s+(?:really\s+|much\s+)?"
_PERSON = r"(?:i|we)(?:'ve| have)?\s+(?:really\s+|also\s+|just\s+|already\s+)?"
_HAD = r"(?:seen|saw|watched|read|heard|played|bought|owned?)"
# A word before a title, and what it says of it.
MARKER = pattern(
    rf"(?P<disliked>{_NEVER}(?:like|love|enjoy|stand|want)d?|hate[ds]?|dislike[ds]?|unlike|nothing like|"
    r"(?:but |and )?not like|fed up with)",
    rf"(?P<refused>{_PERSON}{_HAD}|(?:i|we)(?:'ve)? already (?:have|know|got)|already {_HAD}|(?:but |and )?not|none of|"
    r"neither(?: of)?|except(?: for)?|excluding|without|other than|apart from|besides|"
    r"(?:any|every)thing but|all but|instead of|rather than|no)",
    r"(?P<liked>like|similar to|such as|in the (?:style|vein|spirit) of|along the lines of|reminiscent of|resembling|"
    rf"akin to|as good as|comparable to|{_PERSON}(?:love[ds]?|liked?|enjoy(?:ed)?|adored?)|fans? of|close to|"
    r"that goes with|to go with|reminds? me of)",
    r"(?P<than>than)",
    r"(?P<asked>(?:have|know|sell|got|stock|carry)(?:\s+got)?)",
)
KIND_OF = re.compile(
    r"\s*(?:(?:the|that|this|a|my)\s+)?(?:film|movie|book|novel|song|album|artist|band|game|show|series|article|product|"
    r"item)s?\s+(?:called\s+|named\s+)?|\s*the\s+(?:first|original)\s+"
)
AND = re.compile(r"\s*(?:,\s*(?:and|or|nor)?|\band\b|\bor\b|\bnor\b|&)\s+", re.I)
_NTH = rf"(?:{'|'.join(ORDINALS)}|\d{{1,2}}(?:st|nd|rd|th)|last)"
_ONE = r"(?:\s+(?:one|film|movie|item|book|product|article|song|result|suggestion))?"
ORDINAL = re.compile(
    rf"\b(?:the\s+(?P<a>{_NTH}){_ONE}|(?P<b>{_NTH})\s+one|(?:number|no\.|nr\.?)\s*(?P<c>\d{{1,2}}))"
    r"(?!\s*(?:\w*\s+)?(?:years?|months?|weeks?|days?)\b)\b|#(?P<d>\d{1,2})\b"
)
ALL_SHOWN = pattern(r"(?:(?:all|any|both|either)\s+(?:of\s+)?)?(?:these|those|them)(?:\s+ones)?")
FIRST_SHOWN = pattern(
    r"(?:this|that|it)(?:\s+one)?", after=r"\b(?=\s*(?:[,.?!;]|$|but\b|and\b|from\b|under\b|only\b|with))"
)
_WHY = r"^\W*(?:but |and |so |ok(?:ay)?,? )?why\b(?!\s+(?:not|don't)\b)"
WHY = re.compile(
    rf"{_WHY}.*?\b(?:show\w*|recommend\w*|suggest\w*|see\w*|get|got|getting|gave|give\w*|pick\w*|chose|choose|"
    rf"list\w*|this|these|that|those|it|one|here)\b|{_WHY}\W*$|^\W*(?:but |and |so |ok(?:ay)?,? )?(?:how come you\b|"
    r"what made you\b|explain (?:this|these|that|the|your)\b)"
)
BEGINS_WITH_WHY = re.compile(_WHY)
AVAILABLE = pattern(
    r"(?P<no>(?:not|currently not|no longer)\s+(?:available|in stock)|out of stock|sold out|unavailable)",
    r"(?:(?:that|which)\s+(?:is|are)\s+)?(?:currently\s+|still\s+|now\s+)?(?:in stock|ready to ship|"
    r"available(?:\s+(?:now|today|right now|immediately))?|can be (?:delivered|shipped)|you have in stock)",
)
NEGATED = pattern(
    r"(?:(?:but|and)\s+)?(?:not|no|neither|without|except(?:\s+for)?|excluding|other than|apart from|"
    r"(?:any|every)thing but|all but|nothing|never|non|avoid|minus|free of|rather than|instead of|hate|dislike|"
    r"fed up with|(?:do not|don't|dont|did not|didn't|cannot|can't)\s+(?:want|like|need|stand|enjoy|show me|include)|"
    r"aren't|isn't|arent|isnt|"
    r"(?:do not|don't|does not|doesn't)\s+have)",
    after=r"\b[\s-]*(?:(?:a|an|any|the|with|about|another|of|on|in|that is|that's|which is|those|ones|more|containing|"
    r"featuring|involving|made of|made from|from|like|is|be)\s+)*",
)
CHEAP = pattern(
    r"(?P<no>not\s+(?:too\s+|very\s+|so\s+)?(?:expensive|dear|pricey|costly))",
    r"(?P<cheapest>cheapest|least expensive|lowest[ -]priced)",
    r"(?P<dearest>most expensive|dearest|priciest)",
    r"(?P<cheap>cheap|inexpensive|affordable|low[ -]priced|good value)",
    r"(?P<dear>expensive|luxur(?:y|ious)|premium|high[ -]end)",
)
# What is to be given is not called a gift.
GIFT = pattern(r"(?:gifts?|presents?)(?:\s+ideas?)?", after=r"\b(?=[^.;?!]*\bfor\b)")
NEW = pattern(
    r"(?P<newest>newest|latest|most recent)",
    r"(?P<oldest>oldest|earliest)",
    r"(?P<new>recent|recently|up to date|new releases?|brand new)",
)
# Of a kind of item ('old films'); of anything else it is what the item is about.
AGES = {"new": 1, "modern": 1, "old": -1, "classic": -1}
LESS = re.compile(
    r"\b(?:(?:a bit|a little|much|somewhat)\s+)?less\s+(?!than\b|expensive\b|pricey\b|costly\b)(?P<what>\w+)"
    r"(?:\s+than\b)?"
)
COMPARED_WITH_SHOWN = pattern(
    r"(?P<cheaper>cheaper|less expensive|less pricey|lower priced|less costly)",
    r"(?P<dearer>more expensive|dearer|pricier|more costly)",
    r"(?P<newer>newer|more recent|later ones)",
    r"(?P<older>older|earlier ones)",
    after=r"\b(?:\s+(?:ones?|films?|movies?|items?))?(?P<than>\s+than\b)?",
)
OTHERS = pattern(
    r"more|others?|other ones|something else|anything else|different(?: ones?)?|another(?: one)?|next|else",
    after=r"\b(?!\s+(?:than|recent|expensive|\w+(?:y|ous|ful|ic|ive|al|ing)\b))",
)
AMONG_SHOWN = pattern(r"(?:of|among|from|which of|out of)\s+(?:these|those|them)")
CONTINUES = re.compile(
    r"^\W*(?:and|but|only|just|also|what about|how about|ok|okay|yes|no|now|then|instead|rather|or|same|still|without|"
    r"with|about|not|except|make (?:it|them)|show me (?:more|others))\b"
)
ADDS_ANOTHER = re.compile(r"^\W*(?:and\s+)?or\b")
REPLACES = pattern(r"instead|what about|how about|rather")
IS_COMPARATIVE = re.compile(
    r"^\W*(?:something|anything|ones)?\s*(?:that is |that's )?(?:a bit|a little|much|even|slightly)?\s*"
    r"(?:\w{3,}er|more \w+|less \w+)\s*(?:ones?|please|films?|movies?|items?)?\W*$"
)
COMPARATIVE = re.compile(r"^\w{3,}er$")
IN_ONE_GROUP = re.compile(r"\s*(?:,\s*)?or\s+(?:an?\s+|some\s+)?")
