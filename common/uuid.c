/* Random UUIDs: 122 random bits, version and variant as RFC 9562 section 5.4 lays them out. */
#include "uuid.h"

#include <stdint.h>

#include "hash.h"

void uuid_v4(char out[UUID_SIZE]) {
    uint8_t raw[16];
    hash_random(raw, sizeof raw);
    raw[6] = (uint8_t)((raw[6] & 0x0FU) | 0x40U);
    raw[8] = (uint8_t)((raw[8] & 0x3FU) | 0x80U);
    char hex[33];
    hash_hex_encode(raw, sizeof raw, hex);
    char *to = out;
    for (int i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            *to++ = '-';
        }
        *to++ = hex[i];
    }
    *to = '\0';
}
