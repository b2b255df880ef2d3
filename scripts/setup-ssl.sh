#!/usr/bin/env bash
# Gets a certificate for the site from Let's Encrypt, or another authority that speaks ACME, and keeps it fresh.
#
# usage: scripts/setup-ssl.sh DOMAIN EMAIL [staging|URL] [--dry-run]
#        scripts/setup-ssl.sh --renew [--force]
#        scripts/setup-ssl.sh --install
#   DOMAIN      the host name that people use; it must lead to this computer's port 80
#   EMAIL       who is told when a certificate is about to expire
#   staging     Let's Encrypt's test authority: try with it first, it has generous limits
#   URL         the directory of another ACME authority (https://…)
#   --renew     renew what is in its last 30 days (--force: now); a timer does this twice a day
#   --install   take certificates from SSL_DIR over again, without asking for one
#   --dry-run   only say what would be done
#
# The authority's question (HTTP-01) is answered by the running nginx. The certificate goes to SECRETS_DIR/tls and from there
# into nginx, which takes it over with a reload: connections that are open stay open. SSL_DIR (default
# /etc/letsencrypt) keeps account and certificates. Needs certbot (apt-get install certbot), and root.
# Exit status: 0 done, 1 failed (the old certificate stays in place), 2 usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/compose.sh
. "$(dirname "$0")/lib/compose.sh"
self=$REPO_ROOT/scripts/setup-ssl.sh
wrong_usage() {
    print_help "$0" >&2
    exit 2
}

what='' dry_run=false force=() words=()
for arg in "$@"; do
    case $arg in
        --renew | --install | --answer | --forget) [ -z "$what" ] || wrong_usage; what=${arg#--} ;;
        --force) force=(--force-renewal) ;;
        --dry-run) dry_run=true ;;
        -h | --help) print_help "$0"; exit 0 ;;
        -*) wrong_usage ;;
        *) words+=("$arg") ;;
    esac
done
ssl_dir=$(setting SSL_DIR /etc/letsencrypt)
secrets_dir=$(setting SECRETS_DIR)

# ---- what certbot calls: the answer to the authority's question, put where nginx looks for it, and taken away ----
if [ "$what" = answer ] || [ "$what" = forget ]; then
    token=${CERTBOT_TOKEN:-} content=${CERTBOT_VALIDATION:-}
    [[ $token =~ ^[A-Za-z0-9_-]{1,256}$ && $content =~ ^[A-Za-z0-9_.-]{1,512}$ ]] || die "certbot's question is not understood"
    folder=/run/nginx/acme/.well-known/acme-challenge
    for id in $(containers nginx); do
        if [ "$what" = answer ]; then
            printf '%s' "$content" | docker exec -i "$id" sh -c "mkdir -p $folder && cat >$folder/$token"
        else
            docker exec "$id" rm -f "$folder/$token"
        fi
    done
    exit 0
fi

# lineage: the folder of the certificate that certbot has now, or nothing.
lineage() {
    local domain
    domain=$(cat "$ssl_dir/spheroseg-domain" 2>/dev/null) || return 0
    if [ -s "$ssl_dir/live/$domain/fullchain.pem" ]; then printf '%s' "$ssl_dir/live/$domain"; fi
}
# install_certificate: into SECRETS_DIR, into nginx, reload; nothing is changed by a certificate that does not fit.
install_certificate() {
    local from id
    from=$(lineage)
    [ -n "$from" ] || die "there is no certificate in $ssl_dir: call $0 DOMAIN EMAIL first"
    [ -n "$secrets_dir" ] || die "SECRETS_DIR is not set: the certificate has no place to go to"
    [ "$(openssl x509 -noout -pubkey -in "$from/fullchain.pem")" = "$(openssl pkey -pubout -in "$from/privkey.pem")" ] ||
        die "certificate and key in $from do not belong together"
    (
        umask 077
        mkdir -p "$secrets_dir/tls"
        for file in privkey.pem fullchain.pem; do
            cat "$from/$file" >"$secrets_dir/tls/$file.new"
        done
        mv "$secrets_dir/tls/privkey.pem.new" "$secrets_dir/tls/privkey.pem"
        mv "$secrets_dir/tls/fullchain.pem.new" "$secrets_dir/tls/fullchain.pem"
    )
    say "$secrets_dir/tls: $(openssl x509 -noout -enddate -in "$from/fullchain.pem" | sed 's/notAfter=/valid until /')"
    [ -n "$(containers nginx)" ] || { say "nginx does not run; it takes the certificate when it starts"; return; }
    compose run --rm --no-deps secrets >/dev/null 2>&1 || die "the containers did not get the certificate: docker-compose logs secrets"
    for id in $(containers nginx); do
        docker exec "$id" nginx -t -q -c /run/nginx/nginx.conf || die "nginx refuses the certificate; it serves on with the old one"
        docker kill -s HUP "$id" >/dev/null
    done
    say "nginx has taken it over"
}

need_certbot() {
    command -v certbot >/dev/null 2>&1 || die "certbot is not installed: apt-get install certbot"
    need_docker
    [ -n "$(containers nginx)" ] || die "nginx does not run, and it has to answer the authority's question: docker-compose up -d"
}
common=(--config-dir "$ssl_dir" --work-dir "$ssl_dir/work" --logs-dir "$ssl_dir/logs" --non-interactive --quiet)

if [ "$what" = install ]; then
    [ ${#words[@]} -eq 0 ] || wrong_usage
    install_certificate
    exit 0
fi
if [ "$what" = renew ]; then
    [ ${#words[@]} -eq 0 ] || wrong_usage
    if $dry_run; then say "would renew what is in its last 30 days in $ssl_dir"; exit 0; fi
    need_certbot
    from=$(lineage)
    [ -n "$from" ] || die "there is no certificate in $ssl_dir to renew"
    before=$(openssl x509 -noout -fingerprint -in "$from/fullchain.pem")
    certbot renew "${common[@]}" "${force[@]}" --no-random-sleep-on-renew || die "not renewed; $ssl_dir/logs says why"
    if [ "$(openssl x509 -noout -fingerprint -in "$from/fullchain.pem")" = "$before" ]; then
        say "nothing to renew: $(openssl x509 -noout -enddate -in "$from/fullchain.pem" | sed 's/notAfter=/valid until /')"
    else
        install_certificate
    fi
    exit 0
fi

if [ ${#words[@]} -lt 2 ] || [ ${#words[@]} -gt 3 ] || [ ${#force[@]} -gt 0 ]; then wrong_usage; fi
domain=${words[0],,} email=${words[1]} authority=${words[2]:-}
[[ $domain =~ ^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$ ]] || die "$domain is no host name"
[[ $email =~ ^[^@[:space:]]+@[^@[:space:]]+$ ]] || die "$email is no e-mail address"
asked=$authority
case $authority in
    '') server=() asked="Let's Encrypt" ;;
    staging) server=(--staging) asked="Let's Encrypt (staging)" ;;
    https://*) server=(--server "$authority") ;;
    *) wrong_usage ;;
esac
if $dry_run; then
    say "would ask $asked for a certificate for $domain, install it into ${secrets_dir:-SECRETS_DIR}/tls, and set a timer"
    exit 0
fi
[ -n "$secrets_dir" ] || die "SECRETS_DIR is not set in $SPHEROSEG_ENV_FILE: the certificate has no place to go to"
need_certbot
say "asking $asked for a certificate for $domain"
certbot certonly "${common[@]}" "${server[@]}" --agree-tos --no-eff-email -m "$email" -d "$domain" --cert-name "$domain" \
    --manual --preferred-challenges http --manual-auth-hook "$self --answer" --manual-cleanup-hook "$self --forget" \
    --key-type ecdsa || die "no certificate; does $domain lead to this computer's port 80? $ssl_dir/logs says more"
printf '%s\n' "$domain" >"$ssl_dir/spheroseg-domain"
install_certificate

# ---- twice a day ----
timer_dir=$(setting TIMER_DIR /etc/systemd/system)
if [ -d "$timer_dir" ]; then
    cat >"$timer_dir/spheroseg-ssl.service" <<UNIT
[Unit]
Description=Renew Spheroseg's certificate
After=docker.service

[Service]
Type=oneshot
Environment=SPHEROSEG_ENV_FILE=$SPHEROSEG_ENV_FILE
ExecStart=$self --renew
UNIT
    cat >"$timer_dir/spheroseg-ssl.timer" <<'UNIT'
[Unit]
Description=Twice a day: renew Spheroseg's certificate where it is due

[Timer]
OnCalendar=*-*-* 03,15:17:00
RandomizedDelaySec=30m
Persistent=true

[Install]
WantedBy=timers.target
UNIT
    if [ -d /run/systemd/system ] && [ "$timer_dir" = /etc/systemd/system ]; then
        { systemctl daemon-reload && systemctl enable --now --quiet spheroseg-ssl.timer; } ||
            warn "the timer could not be started: systemctl status spheroseg-ssl.timer"
    fi
    say "a timer renews it (systemctl list-timers spheroseg-ssl.timer)"
else
    warn "there is no systemd here: call $self --renew twice a day, by cron"
fi
