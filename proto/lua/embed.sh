#!/bin/sh
# Prints a C file that holds each Lua script given as an argument as `const char lua_<name>[]`.
echo '/* Generated from proto/lua; see embed.sh. */'
for f in "$@"; do
    name=$(basename "$f" .lua)
    printf 'extern const char lua_%s[];\nconst char lua_%s[] =\n' "$name" "$name"
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/    "/' -e 's/$/\\n"/' "$f"
    echo '    ;'
done
