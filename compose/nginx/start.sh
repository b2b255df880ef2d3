#!/bin/sh
# nginx's start: fills MAX_UPLOAD_SIZE in, checks the result, and runs it.
set -eu
sed "s/@MAX_UPLOAD_SIZE@/$((${MAX_UPLOAD_SIZE:-2147483648} + 1048576))/" /etc/spheroseg/nginx.conf >/run/nginx/nginx.conf
nginx -t -q -c /run/nginx/nginx.conf
exec nginx -c /run/nginx/nginx.conf -g 'daemon off;'
