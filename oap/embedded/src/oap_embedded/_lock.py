"""The lock: every jar of OAP by name, size and hash."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from oap_embedded._errors import OapEmbeddedError

VERSION: Final = "10.1.0"
"""The newest OAP on Maven Central, and the last that brings a storage (H2) of its own."""

H2_VERSION: Final = "2.4.240"
"""Not the 2.1.212 that OAP asks for, and none before 2.3.230: once killed, opened again and closed within 45 s, their
files could never be opened again (H2's issue 2752). Nor 2.5.250, which may break them on closing (issue 4387)."""

GROOVY_VERSION: Final = "4.0.33"
"""Not the 4.0.15 that OAP asks for: it can read no class of Java 25, and OAP does not start."""

_LEFT_OUT: Final = re.compile(
    r"""
    # Modules that our application.yml does not name.
    org\.apache\.skywalking:(
        cluster-(?!standalone) | configuration-(?!api) | grpc-configuration-sync | storage-(?!jdbc) | banyandb-java
        | (aws-firehose|otel|envoy-metrics|zipkin)-receiver | receiver-proto | (cilium|kafka)-fetcher | fetcher-proto
        | exporter | (debugging|zipkin)-query | (logql|promql)-plugin | server-testing
        | skywalking-(browser|clr|ebpf|jvm|mesh|telegraf|zabbix)-receiver
    )
    # What only those need: clients of configuration centers, of queues, of Elasticsearch, and what is under these.
    | com\.alibaba\.nacos: | com\.ctrip\.framework\.apollo: | com\.orbitz\.consul: | io\.etcd: | org\.apache\.curator:
    | org\.apache\.(httpcomponents|kafka|yetus|zookeeper): | org\.lz4: | org\.xerial\.snappy: | com\.github\.luben:
    | com\.squareup\.\w+: | com\.google\.(auto\.service|flatbuffers|inject|re2j): | aopalliance: | javax\.\w+:
    | net\.bytebuddy: | net\.jodah: | commons-(beanutils|codec|net|validator): | build\.buf\. | org\.curioswitch\.
    | com\.fasterxml\.jackson\.datatype:jackson-datatype-guava: | com\.linecorp\.armeria:armeria-grpc
    | io\.grpc:grpc-(grpclb|services):
    # Logs of a Kubernetes pod, which our application.yml switches off: the class that asks for them is never run.
    | io\.fabric8: | org\.snakeyaml: | com\.fasterxml\.jackson\.dataformat:
    # Libraries of other systems and other versions.
    | io\.netty:.*:(windows-x86_64 | 4\.1\.45\.Final)$
    """,
    re.VERBOSE,
)
"""Coordinates of the jars of a release that nothing here can use: OAP looks through every jar at each start, several
times. The other jars keep the versions that SkyWalking is released with."""

_HEADER: Final = f"""\
# The jars of org.apache.skywalking:server-starter:{VERSION} that we run: sha256, size in bytes, Maven coordinates.
# Made by `python -m oap_embedded lock`, which needs Maven.
"""

_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>oap</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.skywalking</groupId><artifactId>server-starter</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>com.h2database</groupId><artifactId>h2</artifactId><version>{H2_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.groovy</groupId><artifactId>groovy</artifactId><version>{GROOVY_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class Jar(NamedTuple):
    """One line of the lock."""

    sha256: str
    size: int
    coordinates: str
    """`group:artifact:version`, with `:classifier` behind it where there is one."""

    @property
    def name(self) -> str:
        """The file's name, in a repository as in the cache."""
        return "-".join(self.coordinates.split(":")[1:]) + ".jar"

    @property
    def path(self) -> str:
        """Where a Maven repository has it, from the repository's root."""
        group, artifact, version, *_ = self.coordinates.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}/{self.name}"


def read_lock() -> list[Jar]:
    """Return the jars that this version of the package runs."""
    lines = files(__package__).joinpath("jars.lock").read_text().splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return [Jar(sha256, int(size), coordinates) for sha256, size, coordinates in rows]


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock(target: Path) -> int:
    """Resolve OAP with Maven, write the lock anew, and return how many jars it has.

    Raises:
        OapEmbeddedError: there is no Maven, or it failed.
    """
    maven = shutil.which("mvn")
    if maven is None:
        message = "making the lock needs Maven: install it, or keep the lock as it is"
        raise OapEmbeddedError(message)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pom.xml").write_text(_POM)
        command = [maven, "-q", "dependency:copy-dependencies", "-DoutputDirectory=lib"]
        command += ["-Dmdep.useRepositoryLayout=true", "-DincludeScope=runtime"]
        if subprocess.run(command, cwd=folder, check=False).returncode:  # noqa: S603  # our own command line
            message = "Maven could not resolve OAP; its own words are above"
            raise OapEmbeddedError(message)
        library = Path(folder, "lib")
        jars = [Jar(sha256(jar), jar.stat().st_size, _coordinates(library, jar)) for jar in library.rglob("*.jar")]
    jars = sorted((jar for jar in jars if not _LEFT_OUT.match(jar.coordinates)), key=lambda jar: jar.coordinates)
    target.write_text(_HEADER + "".join(f"{jar.sha256} {jar.size} {jar.coordinates}\n" for jar in jars))
    return len(jars)


def _coordinates(library: Path, jar: Path) -> str:
    *group, artifact, version, name = jar.relative_to(library).parts
    classifier = name.removeprefix(f"{artifact}-{version}").removesuffix(".jar").removeprefix("-")
    return ":".join(filter(None, (".".join(group), artifact, version, classifier)))
