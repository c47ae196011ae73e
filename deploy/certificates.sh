#!/bin/sh
# Makes the certificates and the data key of a ZyFlow cluster, with openssl alone.
#
#   certificates.sh [--days N] DIR CLUSTER ca              the cluster's CA: ca.pem, ca.key
#   certificates.sh [--days N] DIR CLUSTER node ID         a voter's certificate: node-ID.pem, node-ID.key
#   certificates.sh [--days N] DIR CLUSTER learner ID      a learner's: learner-ID.pem, learner-ID.key
#   certificates.sh [--days N] DIR CLUSTER agent ID        a light agent's: agent-ID.pem, agent-ID.key
#   certificates.sh [--days N] DIR CLUSTER client NAME     a person's or tool's: client-NAME.pem, client-NAME.key
#   certificates.sh [--days N] DIR CLUSTER admin NAME      an administrator's: admin-NAME.pem, admin-NAME.key
#   certificates.sh key FILE                               the data key that entries are sealed under
#
# Several makings may follow each other in one call: DIR CLUSTER ca node 1 node 2 node 3 client demo
#
# Each certificate says in one URI whom it speaks for: spiffe://CLUSTER/ROLE/ID. People and tools have a number made of
# their name. Nothing is ever overwritten; keys have mode 0600. Validity begins an hour ago, for clocks that are behind,
# and lasts 90 days (a CA: 10 years) unless --days says otherwise. Keep ca.key off the nodes: whoever has it can be
# anybody. Keep the data key outside every data folder, with a backup of its own: without it the data is unreadable.
set -eu
umask 077
LC_ALL=C
export LC_ALL

fail() { # message: say it and leave nothing half-made
    printf 'certificates.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

usage() {
    fail 'usage: certificates.sh [--days N] DIR CLUSTER {ca | node ID | learner ID | agent ID | client NAME | admin NAME}... | certificates.sh key FILE' 2
}

command -v openssl >/dev/null 2>&1 || fail 'openssl is not installed: install it (Debian: apt-get install openssl)'

make_key_file() { # file
    [ ! -e "$1" ] || fail "$1 exists and is not overwritten: move it away first, if nothing needs it any more"
    id=$(printf '%d' "0x$(openssl rand -hex 4)")
    key=$(openssl rand -hex 32)
    [ "${#key}" -eq 64 ] || fail 'openssl gave no 32 random bytes'
    # noclobber: the file is created here or not at all
    (set -C && printf 'zyflow-data-key v1 id=%s\n%s\n' "$id" "$key" >"$1") || fail "cannot write $1: check its folder"
}

is_decimal() { # text: a number from 0, without leading zeros, that fits 18 digits
    case $1 in '' | *[!0-9]* | 0?* | ???????????????????*) return 1 ;; esac
}

stamp() { # seconds since 1970: as openssl takes it (GNU and busybox date, then BSD)
    date -u -d "@$1" +%Y%m%d%H%M%SZ 2>/dev/null || date -u -r "$1" +%Y%m%d%H%M%SZ
}

write_config() { # subject alternative names, extended key usages
    cat >openssl.cnf <<EOF
[req]
distinguished_name = subject
prompt = yes
[subject]
commonName = name
[ca]
default_ca = signing
[signing]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
organizationName = optional
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = ${2:-clientAuth}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = ${1:-DNS:unused.invalid}
EOF
}

issue() { # file's stem, common name, days, section of extensions, signing key, then more arguments for `openssl ca`
    stem=$1 name=$2 valid=$3 section=$4 signing_key=$5
    shift 5
    for made in "$dir/$stem.key" "$dir/$stem.pem"; do
        [ ! -e "$made" ] || fail "$made exists and is not overwritten: move it away first, if nothing needs it any more"
    done
    openssl req -new -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj "/O=$cluster/CN=$name" -keyout "$stem.key" -out "$stem.csr" 2>errors ||
        fail "openssl made no key for $stem: $(cat errors)"
    now=$(date -u +%s)
    openssl ca -batch -notext -config openssl.cnf -extensions "$section" -in "$stem.csr" \
        -keyfile "$signing_key" -startdate "$(stamp $((now - 3600)))" -enddate "$(stamp $((now + valid * 86400)))" \
        -out "$stem.pem" "$@" 2>errors || fail "openssl signed no certificate for $stem: $(cat errors)"
    chmod 600 "$stem.key"
    chmod 644 "$stem.pem"
    mv "$stem.key" "$stem.pem" "$dir/"
}

make_authority() {
    write_config ''
    issue ca "$cluster CA" "${days:-3650}" authority ca.key -selfsign
}

make_leaf() { # role, id, file's stem, common name
    for needed in ca.pem ca.key; do
        [ -r "$dir/$needed" ] || fail "$dir/$needed is missing: make the CA first (certificates.sh $dir $cluster ca)"
    done
    case $1 in # only nodes answer connections; a stolen agent's certificate can't pose as one
    voter | learner) write_config "URI:spiffe://$cluster/$1/$2, DNS:node.zyflow.internal" 'serverAuth, clientAuth' ;;
    *) write_config "URI:spiffe://$cluster/$1/$2" clientAuth ;;
    esac
    issue "$3" "$4" "${days:-90}" leaf "$dir/ca.key" -cert "$dir/ca.pem"
}

number_of() { # name: 60 bits of its SHA-256, so that two names practically never share a number
    digest=$(printf '%s' "$1" | openssl dgst -sha256 -r)
    printf '%d' "0x$(printf '%.15s' "$digest")"
}

days=
if [ "${1:-}" = --days ]; then
    [ "$#" -ge 2 ] || usage
    days=$2
    is_decimal "$days" && [ "$days" -ge 1 ] && [ "$days" -le 36500 ] || fail "--days takes 1 to 36500, not '$days'" 2
    shift 2
fi

if [ "${1:-}" = key ]; then
    [ "$#" -eq 2 ] || usage
    make_key_file "$2"
    exit 0
fi

[ "$#" -ge 3 ] || usage
dir=$1 cluster=$2
shift 2
case $cluster in
'' | *[!a-z0-9._-]* | [!a-z0-9]*) fail "the cluster's name '$cluster' must be made of a-z 0-9 . _ - with a letter or digit first" 2 ;;
esac
[ "${#cluster}" -le 63 ] || fail "the cluster's name '$cluster' is longer than 63 characters" 2

mkdir -p "$dir" && dir=$(cd "$dir" && pwd) || fail "cannot make or enter the folder $dir"
work=$(mktemp -d "$dir/.new.XXXXXX")
trap 'cd / && rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
: >"$work/index.txt"
# openssl's configuration can't quote a path: its own files are named relative to the folder it works in
cd "$work"

while [ "$#" -gt 0 ]; do
    kind=$1
    shift
    case $kind in
    ca)
        make_authority
        continue
        ;;
    node | learner | agent | client | admin) [ "$#" -gt 0 ] || usage ;;
    *) usage ;;
    esac
    subject=$1
    shift
    case $kind in
    node | learner | agent)
        is_decimal "$subject" && [ "$subject" -ge 1 ] || fail "a $kind's id is a number from 1, of at most 18 digits, not '$subject'" 2
        role=$kind
        [ "$kind" != node ] || role=voter
        make_leaf "$role" "$subject" "$kind-$subject" "$kind-$subject"
        ;;
    client | admin)
        case $subject in
        '' | *[!A-Za-z0-9._-]* | [!A-Za-z0-9]*) fail "the name '$subject' must be made of letters, digits and . _ - with a letter or digit first" 2 ;;
        esac
        [ "${#subject}" -le 48 ] || fail "the name '$subject' is longer than 48 characters" 2
        make_leaf "$kind" "$(number_of "$subject")" "$kind-$subject" "$kind-$subject"
        ;;
    esac
done
