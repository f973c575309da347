"""Name a visitor's operating system and browser as Rocket.Chat does in `visitor.os` and `visitor.browser`.

Guaranteed: a pure function of the text that never raises and costs milliseconds, and the answers of ua-parser-js 1.0.40
(MIT licence, © Faisal Salman), the source of every fact in the two tables, for anything that can stand in an HTTP
header. Only the first 500 characters count. Of the other 1.0.x releases, 1.0.37 to 1.0.39 know some rare browsers by
other names or not at all, and 1.0.41 says `Linux undefined` where these tell the processor: `Linux x86_64`.

A text is `<name> <version>`. Without a name there is no text; a name without a version reads `<name> undefined`, which
is what receivers have always been sent.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

_MAX_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class UserAgent:
    """What a visitor uses, in Rocket.Chat's words; `None` where the text does not tell."""

    os: str | None
    browser: str | None


def parse_user_agent(text: str) -> UserAgent:
    """Answer for `text`, remembering the most recent answers."""
    # Cut before the cache, so that the cache never holds a long text.
    return _parse(text if len(text) <= _MAX_CHARACTERS else text.lstrip()[:_MAX_CHARACTERS])


@lru_cache(maxsize=4096)
def _parse(text: str) -> UserAgent:
    return UserAgent(os=_describe(text, _SYSTEMS), browser=_describe(text, _BROWSERS))


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    name: str
    version: Callable[[str], str | None]


def _rule(pattern: str, name: str = "{}", version: Callable[[str], str | None] = str) -> _Rule:
    """A row of the tables: `name` may repeat the group `n` as `{}`, `version` reads the group `v` if it is not empty.

    In `pattern`, `{v}` is the usual version group and `{-v}` the one that may hold dashes.
    """
    pattern = pattern.replace("{v}", r"(?P<v>[\w.]+)").replace("{-v}", r"(?P<v>[-\w.]+)")
    return _Rule(re.compile(pattern, re.ASCII | re.IGNORECASE), name, version)


def _describe(text: str, rules: Iterable[_Rule]) -> str | None:
    for rule in rules:
        if match := rule.pattern.search(text):
            groups = match.groupdict()
            version = rule.version(groups["v"]) if groups.get("v") else None
            return f"{rule.name.format(groups.get('n'))} {'undefined' if version is None else version}"
    return None


def _dotted(version: str) -> str:
    return version.replace("_", ".")


# Tried in this order on any part of the version, so the order matters where a version names two.
_WINDOWS_VERSIONS = {
    "nt 6.1": "7",
    "nt 6.2": "8",
    "nt 6.4": "10",
    "nt 10.0": "10",
    "nt 5.0": "2000",
    "4.90": "ME",
    "nt3.51": "NT 3.11",
    "nt4.0": "NT 4.0",
    "nt 5.1": "XP",
    "nt 5.2": "XP",
    "nt 6.0": "Vista",
    "nt 6.3": "8.1",
    "arm": "RT",
}


def _windows(version: str) -> str:
    lowered = version.lower()
    return next((known for part, known in _WINDOWS_VERSIONS.items() if part in lowered), version)


# Safari before 3.0 tells only its build.
_SAFARI_BUILDS = {
    "/8": "1.0",
    "/1": "1.2",
    "/3": "1.3",
    "/412": "2.0",
    "/416": "2.0.2",
    "/417": "2.0.3",
    "/419": "2.0.4",
}


def _old_safari(build: str) -> str | None:
    return next((known for start, known in _SAFARI_BUILDS.items() if build.startswith(start)), None)


def _cobalt(version: str) -> str:
    return re.sub(r"master.|lts.", "", version, count=1)


# The first row that matches anywhere in the text wins: products that also claim to be Chrome, Safari or Firefox stand
# above those.
_BROWSERS = (
    _rule(r"\b(?:crmo|crios)/{v}", "Chrome"),
    _rule(r"edg(?:e|ios|a)?/{v}", "Edge"),
    # Opera
    _rule(r"(?P<n>opera mini)/{-v}"),
    _rule(r"(?P<n>opera [mobiletab]{3,6})\b.+version/{-v}"),
    _rule(r"(?P<n>opera)(?:.+version/|[/ ]+){v}"),
    _rule(r"opios[/ ]+{v}", "Opera Mini"),
    _rule(r"\bop(?:rg)?x/{v}", "Opera GX"),
    _rule(r"\bopr/{v}", "Opera"),
    # many engines
    _rule(r"\bb[ai]*d(?:uhd|[ub]*[aekoprswx]{5,6})[/ ]?{v}", "Baidu"),
    _rule(r"\b(?:mxbrowser|mxios|myie2)/?(?P<v>[-\w.]*)\b", "Maxthon"),
    _rule(r"(?P<n>kindle)/{v}"),
    _rule(r"(?P<n>lunascape|maxthon|netfront|jasmine|blazer|sleipnir)[/ ]?(?P<v>[\w.]*)"),
    # Internet Explorer before 11 and its relatives
    _rule(r"(?P<n>avant|iemobile|slim(?:browser|boat|jet))[/ ]?(?P<v>[\d.]*)"),
    _rule(r"(?:ms|\()(?P<n>ie) {v}"),
    # relatives of Chrome and Safari
    _rule(
        r"(?P<n>flock|rockmelt|midori|epiphany|silk|skyfire|ovibrowser|bolt|iron|vivaldi|iridium|phantomjs|bowser"
        r"|qupzilla|falkon|rekonq|puffin|brave|whale(?!.+naver)|qqbrowserlite|duckduckgo|klar|helio|dragon)/{-v}"
    ),
    _rule(r"(?P<n>heytap|ovi|115)browser/(?P<v>[\d.]+)"),
    _rule(r"(?P<n>weibo)__(?P<v>[\d.]+)"),
    _rule(r"quark(?:pc)?/{-v}", "Quark"),
    _rule(r"\bddg/{v}", "DuckDuckGo"),
    _rule(r"(?:\buc? ?browser|juc.+ucweb)[/ ]?{v}", "UCBrowser"),
    _rule(r"microm.+\bqbcore/{v}", "WeChat"),
    _rule(r"\bqbcore/{v}.+microm", "WeChat"),
    _rule(r"micromessenger/{v}", "WeChat"),
    _rule(r"konqueror/{v}", "Konqueror"),
    _rule(r"trident.+rv[: ](?P<v>[\w.]{1,9})\b.+like gecko", "IE"),
    _rule(r"ya(?:search)?browser/{v}", "Yandex"),
    _rule(r"slbrowser/{v}", "Smart Lenovo Browser"),
    _rule(r"(?P<n>avast|avg)/{v}", "{} Secure Browser"),
    _rule(r"\bfocus/{v}", "Firefox Focus"),
    _rule(r"\bopt/{v}", "Opera Touch"),
    _rule(r"coc_coc\w+/{v}", "Coc Coc"),
    _rule(r"dolfin/{v}", "Dolphin"),
    _rule(r"coast/{v}", "Opera Coast"),
    _rule(r"miuibrowser/{v}", "MIUI Browser"),
    _rule(r"fxios/{-v}", "Firefox"),
    _rule(r"\bqihoobrowser/?(?P<v>[\w.]*)", "360"),
    _rule(r"\b(?P<n>qq)/{v}", "{}Browser"),
    _rule(r"(?P<n>oculus|sailfish|huawei|vivo|pico)browser/{v}", "{} Browser"),
    _rule(r"samsungbrowser/{v}", "Samsung Internet"),
    _rule(r"metasr[/ ]?(?P<v>[\d.]+)", "Sogou Explorer"),
    _rule(r"sogoumo\w+/(?P<v>[\d.]+)", "Sogou Mobile"),
    _rule(r"(?P<n>electron)/{v} safari"),
    _rule(r"(?P<n>tesla)(?: qtcarbrowser|/(?P<v>20\d\d\.[-\w.]+))"),
    _rule(r"(?P<n>qqbrowser|2345(?=browser|chrome|explorer))\w*[/ ]?v?{v}"),
    _rule(r"(?P<n>lbbrowser|rekonq)"),
    _rule(r"\[(?P<n>linkedin)app\]"),
    _rule(r"ome/{v} \w* ?(?P<n>iron) saf"),
    _rule(r"ome/{v}.+qihu (?P<n>360)[es]e"),
    # browsers inside apps
    _rule(r"(?:fban/fbios|fb_iab/fb4a)(?!.+fbav)|;fbav/{v};", "Facebook"),
    _rule(r"(?P<n>klarna)/{v}"),
    _rule(r"(?P<n>kakao(?:talk|story))[/ ]{v}"),
    _rule(r"(?P<n>naver)\(.*?(?P<v>\d++\.[\w.]++).*\)"),  # possessive: nothing shorter could end better
    _rule(r"safari (?P<n>line)/{v}"),
    _rule(r"\b(?P<n>line)/{v}/iab"),
    _rule(r"(?P<n>alipay)client/{v}"),
    _rule(r"(?P<n>twitter)(?:and| f.+e/{v})"),
    _rule(r"(?P<n>chromium|instagram|snapchat)[/ ]{-v}"),
    _rule(r"\bgsa/{v} .*safari/", "GSA"),
    _rule(r"musical_ly(?:.+app_?version/|_){v}", "TikTok"),
    # Chrome, Android's own browser, Safari
    _rule(r"headlesschrome(?:/{v}| )", "Chrome Headless"),
    _rule(r" wv\).+chrome/{v}", "Chrome WebView"),
    _rule(r"droid.+ version/{v}\b.+safari", "Android Browser"),
    _rule(r"(?P<n>chrome|omniweb|arora|[tizenoka]{5} ?browser)/v?{v}"),
    _rule(r"version/(?P<v>[\w.,]+) .*mobile/\w+ safari", "Mobile Safari"),
    _rule(r"version/(?P<v>[\w(.|,)]+) .*(?P<n>mobile ?safari|safari)"),
    _rule(r"webkit.+?(?P<n>mobile ?safari|safari)(?P<v>/[\w.]+)", version=_old_safari),
    _rule(r"(?P<n>webkit|khtml)/{v}"),
    # Firefox and its relatives
    _rule(r"(?:navigator|netscape\d?)/{-v}", "Netscape"),
    _rule(r"(?P<n>wolvic|librewolf)/{v}"),
    _rule(r"mobile vr; rv:{v}\).+firefox", "Firefox Reality"),
    _rule(r"ekiohf.+(?P<n>flow)/{v}", version=_dotted),
    _rule(r"(?P<n>swiftfox)"),
    _rule(
        r"(?P<n>icedragon|iceweasel|camino|chimera|fennec|maemo browser|minimo|conkeror)[/ ]?(?P<v>[\w.+]+)",
        version=_dotted,
    ),
    _rule(
        r"(?P<n>seamonkey|k-meleon|icecat|iceape|firebird|phoenix|palemoon|basilisk|waterfox)/{-v}\Z",
        version=_dotted,
    ),
    _rule(r"(?P<n>firefox)/{v}", version=_dotted),
    _rule(r"(?P<n>mozilla)/{v} .+rv:.+gecko/\d+", version=_dotted),
    # the rest
    _rule(
        r"(?P<n>polaris|lynx|dillo|icab|doris|amaya|w3m|netsurf|obigo|mosaic|(?:go|ice|up)[. ]?browser)[-/ ]?v?{v}",
        version=_dotted,
    ),
    _rule(r"(?P<n>links) \({v}", version=_dotted),
    _rule(r"(?P<n>cobalt)/{v}", version=_cobalt),
)

_SYSTEMS = (
    # Windows
    _rule(r"microsoft (?P<n>windows) (?P<v>vista|xp)"),
    _rule(r"(?P<n>windows (?:phone(?: os)?|mobile))[/ ]?(?P<v>[\w. ]*)", version=_windows),
    _rule(r"windows nt 6\.2; (?P<v>arm)", "Windows", _windows),
    _rule(r"windows[/ ]?(?P<v>[ntce\d. ]+\w)(?!.+xbox)", "Windows", _windows),
    _rule(r"(?:win(?=3|9|n)|win 9x )(?P<v>[nt\d.]+)", "Windows", _windows),
    # Apple
    _rule(r"ip[honead]{2,4}\b(?:.*os (?P<v>\w+) like mac|; opera)", "iOS", _dotted),
    _rule(r"(?:ios;fbsv/|iphone.+ios[/ ])(?P<v>[\d.]+)", "iOS", _dotted),
    _rule(r"cfnetwork/.+darwin", "iOS"),
    _rule(r"mac os x ?(?P<v>[\w. ]*)", "Mac OS", _dotted),
    _rule(r"(?:macintosh|mac_powerpc\b)(?!.+haiku)", "Mac OS"),
    # phones, watches, television sets
    _rule(r"droid {v}\b.+(?P<n>android[- ]x86|harmonyos)"),
    _rule(
        r"(?P<n>android|webos|qnx|bada|rim tablet os|maemo|meego|sailfish|openharmony)[-/ ]?(?P<v>[\w.]*)",
    ),
    _rule(r"(?P<n>blackberry)\w*/(?P<v>[\w.]*)"),
    _rule(r"(?P<n>tizen|kaios)[/ ]{v}"),
    _rule(r"\((?P<n>series40);"),
    _rule(r"\(bb(?P<v>10);", "BlackBerry"),
    _rule(r"(?:symbian ?os|symbos|s60(?=;)|series60)[-/ ]?(?P<v>[\w.]*)", "Symbian"),
    _rule(r"mozilla/[\d.]+ \((?:mobile|tablet|tv|mobile; [\w ]+); rv:.+ gecko/{v}", "Firefox OS"),
    _rule(r"web0s;.+rt(?P<v>tv)", "webOS"),
    _rule(r"\b(?:hp)?wos(?:browser)?/{v}", "webOS"),
    _rule(r"watch(?: ?os[,/]|\d,\d/)(?P<v>[\d.]+)", "watchOS"),
    _rule(r"crkey/(?P<v>[\d.]+)", "Chromecast"),
    _rule(r"cros \w+(?:\)| {v}\b)", "Chromium OS"),
    _rule(r"panasonic;(?P<n>viera)"),
    _rule(r"(?P<n>netrange)mmh"),
    _rule(r"(?P<n>nettv)/(?P<v>\d+\.[\w.]+)"),
    # consoles
    _rule(r"(?P<n>nintendo|playstation) (?P<v>[wids345portablevuch]+)"),
    _rule(r"(?P<n>xbox); +xbox (?P<v>[^);]+)"),
    # Linux, Unix and others
    _rule(r"\b(?P<n>joli|palm)\b ?(?:os)?/?(?P<v>[\w.]*)"),
    _rule(r"(?P<n>mint)[/() ]?(?P<v>\w*)"),
    _rule(r"(?P<n>mageia|vectorlinux)[; ]"),
    _rule(
        r"(?P<n>[kxln]?ubuntu|debian|suse|opensuse|gentoo|arch(?= linux)|slackware|fedora|mandriva|centos|pclinuxos"
        r"|red ?hat|zenwalk|linpus|raspbian|plan 9|minix|risc os|contiki|deepin|manjaro|elementary os|sabayon|linspire)"
        r"(?: gnu/linux)?(?: enterprise)?(?:[- ]linux)?(?:-gnu)?[-/ ]?(?!chrom|package)(?P<v>[-\w.]*)",
    ),
    _rule(r"(?P<n>hurd|linux) ?(?P<v>[\w.]*)"),
    _rule(r"(?P<n>gnu) ?(?P<v>[\w.]*)"),
    _rule(r"\b(?P<n>[-frentopcghs]{0,5}bsd|dragonfly)[/ ]?(?!amd|[ix346]{1,2}86)(?P<v>[\w.]*)"),
    _rule(r"(?P<n>haiku) (?P<v>\w+)"),
    _rule(r"sunos ?(?P<v>[\w.]*)", "Solaris"),
    _rule(r"(?P<n>(?:open)?solaris)[-/ ]?(?P<v>[\w.]*)"),
    _rule(r"(?P<n>aix) (?P<v>\d\.)*"),
    _rule(r"\b(?P<n>beos|os/2|amigaos|morphos|openvms|fuchsia|hp-ux|serenityos)"),
    _rule(r"(?P<n>unix) ?(?P<v>[\w.]*)"),
)
