#!/bin/sh
# Makes the secrets and certificates that are missing and lays out what each service needs, readable by it alone.
# Runs once before the others start, as root and without a network.
#
# usage: make-secrets.sh DIR [HOST_DIR]
#   DIR        where the services read: DIR/postgres, DIR/redis, DIR/app, DIR/nginx, DIR/monitoring, DIR/grafana, DIR/backup
#   HOST_DIR   what scripts/create-secrets.sh made on the host; a file there takes precedence over one in DIR, so a secret
#              is rotated by changing it there and starting again
#
# PUBLIC_NAME is the host name in the public certificate, as long as nobody gives a real one (HOST_DIR/tls).
set -eu
umask 077
dir=$1 host=${2:-/nonexistent}
postgres_uid=999 redis_uid=999 app_uid=10001 nginx_uid=101 prometheus_uid=65534 grafana_uid=472
mkdir -p "$dir/made"
cd "$dir"

word() { head -c "$1" /dev/urandom | base64 | tr -d '=\n' | tr '+/' '-_'; }
# secret NAME BYTES: the secret's value; made at the first call of all times.
secret() {
    if [ -s "$host/$1" ]; then
        tr -d '\r\n' <"$host/$1"
        return
    fi
    [ -s "made/$1" ] || word "$2" >"made/$1"
    cat "made/$1"
}
# place OWNER MODE FILE: stdin becomes FILE, in one step, so that nobody reads half of it.
place() {
    mkdir -p "$(dirname "$3")"
    cat >"$3.new"
    chown "$1:$1" "$3.new"
    chmod "$2" "$3.new"
    mv "$3.new" "$3"
}
place_dir() { # place_dir OWNER DIR
    mkdir -p "$2"
    chown "$1:$1" "$2"
    chmod 750 "$2"
}
for pair in "$postgres_uid postgres" "$redis_uid redis" "$app_uid app" "$nginx_uid nginx" "$prometheus_uid monitoring" \
    "$grafana_uid grafana" \
    "$postgres_uid backup"; do
    # shellcheck disable=SC2086  # two words
    place_dir $pair
done
chmod 755 "$dir"

database=$(secret postgres_password 24)
redis=$(secret redis_password 24)
redis_admin=$(secret redis_admin_password 24)
printf '%s' "$database" | place $postgres_uid 400 postgres/password
printf 'postgresql://spheroseg:%s@postgres:5432/spheroseg' "$database" | place $app_uid 400 app/database_url
printf 'redis://spheroseg:%s@redis:6379/0' "$redis" | place $app_uid 400 app/redis_url
secret jwt_secret 48 | place $app_uid 400 app/jwt_secret
printf '%s' "$database" | place $prometheus_uid 400 monitoring/database_password
printf '{"redis://redis:6379":"%s"}' "$redis_admin" | place $prometheus_uid 400 monitoring/redis_passwords.json
secret grafana_password 18 | place $grafana_uid 400 grafana/password
secret heartbeat_password 24 | place $app_uid 400 app/heartbeat_password
# Encrypts the backups where BACKUP_ENCRYPT=true. Whoever has lost it has lost them, so keep a copy elsewhere.
secret backup_passphrase 36 | place $postgres_uid 440 backup/passphrase
# Nobody can make these up: without them Alertmanager shows its alerts on its own page only.
for name in slack_url smtp_password; do
    { [ -s "$host/$name" ] && tr -d '\r\n' <"$host/$name" || printf 'http://localhost/unset'; } |
        place $prometheus_uid 400 "monitoring/$name"
done

# Likewise the key of a bucket (docker-compose.s3.yml): the daemons and the backups each have it as a file of theirs.
for name in s3_access_key s3_secret_key; do
    for place in "$app_uid app" "$postgres_uid backup"; do
        # shellcheck disable=SC2086  # two words
        set -- $place
        { [ ! -s "$host/$name" ] || tr -d '\r\n' <"$host/$name"; } | place "$1" 440 "$2/$name"
    done
done

grep '^user ' /usr/local/lib/spheroseg/redis-acl.conf | sed "s/@PASSWORD@/$redis/" | { # the file takes no comments
    cat
    printf 'user admin on >%s ~* &* +@all\n' "$redis_admin"
} | place $redis_uid 400 redis/users.acl
place $redis_uid 400 redis/redis.conf <<CONF
bind 0.0.0.0
protected-mode yes
port 6379
dir /data
aclfile /run/spheroseg/redis/users.acl
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
tcp-keepalive 60
CONF

# certificate NAME SUBJECT [ALTERNATIVE...]: made/NAME.crt, signed by the authority of this installation; made again in its
# last month.
authority() {
    [ -s made/ca.crt ] && return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout made/ca.key -out made/ca.crt -days 3650 \
        -subj "/CN=Spheroseg internal authority" 2>/dev/null
}
certificate() {
    name=$1 subject=$2 names=DNS:$2
    shift 2
    for other in "$@"; do names=$names,DNS:$other; done
    [ -s "made/$name.crt" ] && openssl x509 -checkend 2592000 -noout -in "made/$name.crt" >/dev/null 2>&1 && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "made/$name.key" -out "made/$name.csr" \
        -subj "/CN=$subject" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$names" >"made/$name.ext"
    openssl x509 -req -in "made/$name.csr" -CA made/ca.crt -CAkey made/ca.key -CAcreateserial -days 397 \
        -extfile "made/$name.ext" -out "made/$name.crt" 2>/dev/null
    rm -f "made/$name.csr" "made/$name.ext"
}
authority
certificate gateway gateway gateway-blue gateway-green
certificate public "${PUBLIC_NAME:-localhost}" nginx
place $app_uid 400 app/gateway.key <made/gateway.key
place $app_uid 444 app/gateway.crt <made/gateway.crt
place $nginx_uid 444 nginx/internal-ca.crt <made/ca.crt
place $app_uid 444 app/internal-ca.crt <made/ca.crt
if [ -s "$host/tls/fullchain.pem" ] && [ -s "$host/tls/privkey.pem" ]; then
    place $nginx_uid 444 nginx/public.crt <"$host/tls/fullchain.pem"
    place $nginx_uid 400 nginx/public.key <"$host/tls/privkey.pem"
else
    cat made/public.crt made/ca.crt | place $nginx_uid 444 nginx/public.crt
    place $nginx_uid 400 nginx/public.key <made/public.key
fi
echo "secrets and certificates are in place"
