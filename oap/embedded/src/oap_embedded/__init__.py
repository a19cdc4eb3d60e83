"""The real SkyWalking OAP, from Maven Central, on the Java runtime of a Python package.

`python -m oap_embedded run` fetches it once and becomes it; see `--help`.
"""

from oap_embedded._errors import OapEmbeddedError
from oap_embedded._fetch import cache_directory, fetch
from oap_embedded._lock import Jar, read_lock
from oap_embedded._network import is_loopback, trusted
from oap_embedded._plain import forget

__all__ = ["Jar", "OapEmbeddedError", "cache_directory", "fetch", "forget", "is_loopback", "read_lock", "trusted"]
