#!/bin/sh
# Writes what is in this image, as SPDX 2.3, to /usr/share/spheroseg/sbom.spdx.json.
#
# usage: sbom.sh NAME VERSION [CREATED]
set -eu
name=$1 version=$2 created=${3:-}
mkdir -p /usr/share/spheroseg
# shellcheck disable=SC2016  # dpkg-query fills these in
dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\t${source:Package}\n' |
    awk -F '\t' -v name="$name" -v version="$version" -v created="${created:-1970-01-01T00:00:00Z}" '
    function quoted(s) { gsub(/[\\"]/, "\\\\&", s); return "\"" s "\"" }
    BEGIN {
        printf "{\"spdxVersion\":\"SPDX-2.3\",\"dataLicense\":\"CC0-1.0\",\"SPDXID\":\"SPDXRef-DOCUMENT\",\"name\":%s,", quoted("spheroseg-" name)
        printf "\"documentNamespace\":%s,", quoted("urn:spheroseg:" name ":" version)
        printf "\"creationInfo\":{\"created\":%s,\"creators\":[\"Tool: compose/image/sbom.sh\"]},\"packages\":[\n", quoted(created)
        printf "{\"name\":%s,\"SPDXID\":\"SPDXRef-Package-spheroseg\",\"versionInfo\":%s,\"licenseConcluded\":\"MIT\",\"downloadLocation\":\"NOASSERTION\"}", quoted("spheroseg-" name), quoted(version)
    }
    {
        id = $1; gsub(/[^A-Za-z0-9.-]/, "-", id)
        printf ",\n{\"name\":%s,\"SPDXID\":\"SPDXRef-Package-%s\",\"versionInfo\":%s,\"downloadLocation\":\"NOASSERTION\",", quoted($1), id, quoted($2)
        printf "\"sourceInfo\":%s,", quoted("built from Debian source package " $4)
        printf "\"externalRefs\":[{\"referenceCategory\":\"PACKAGE-MANAGER\",\"referenceType\":\"purl\",\"referenceLocator\":%s}]}", quoted("pkg:deb/debian/" $1 "@" $2 "?arch=" $3)
    }
    END { print "\n]}" }' >/usr/share/spheroseg/sbom.spdx.json
