#!/bin/sh
# Alertmanager's start: fills the receivers in from the environment.
set -eu
sed -e "s|@SMTP_HOST@|${SMTP_HOST:-localhost:25}|" -e "s|@SMTP_USER@|${SMTP_USER:-}|" \
    -e "s|@SMTP_FROM@|${SMTP_FROM:-spheroseg@localhost}|" \
    -e "s|@SMTP_TLS@|${SMTP_TLS:-true}|" -e "s|@SLACK_CHANNEL@|${SLACK_CHANNEL:-#spheroseg}|" \
    -e "s|@ALERT_EMAIL@|${ALERT_EMAIL:-root@localhost}|" -e "s|@GROUP_WAIT@|${ALERT_GROUP_WAIT:-20s}|" \
    /etc/spheroseg/alertmanager.yml >/tmp/alertmanager.yml
exec /bin/alertmanager --config.file=/tmp/alertmanager.yml --storage.path=/alertmanager --web.listen-address=:9093 \
    --cluster.listen-address=
