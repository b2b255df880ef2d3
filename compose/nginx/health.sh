#!/bin/bash
# Does nginx answer on its plain port? (bash's /dev/tcp: the image needs no client for it)
exec 3<>/dev/tcp/127.0.0.1/8080 || exit 1
printf 'GET /nginx-health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
IFS= read -r -t 4 line <&3 && [[ $line == *" 200 "* ]]
