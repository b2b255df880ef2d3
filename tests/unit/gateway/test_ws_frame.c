/*
 * WebSocket frames: whole messages come out however the bytes were cut, and nothing is stored past its bound.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/ws_frame.h"
#include "tests/unit/support/cmocka_all.h"

static unsigned char wire[70000];
static size_t wire_len;

static void put(int first, const void *data, uint64_t announced, size_t n, int masked) {
    const unsigned char mask[4] = {0x11, 0x22, 0x33, 0x44};
    unsigned char header[WS_HEADER_MAX];
    size_t h = ws_frame_header(header, 0, announced);
    header[0] = (unsigned char)first;
    header[1] |= masked ? 0x80 : 0;
    memcpy(wire + wire_len, header, h);
    wire_len += h;
    if (masked) {
        memcpy(wire + wire_len, mask, 4);
        wire_len += 4;
    }
    for (size_t i = 0; i < n; i++) {
        wire[wire_len++] = (unsigned char)(((const unsigned char *)data)[i] ^ (masked ? mask[i & 3] : 0));
    }
}

static void text(const char *s) {
    put(0x81, s, strlen(s), strlen(s), 1);
}

static ws_event_t feed(ws_reader_t *r, size_t from, size_t *used) {
    return ws_reader_feed(r, wire + from, wire_len - from, used);
}

static int error_of(void) {
    ws_reader_t *r = malloc(sizeof *r);
    size_t used = 0;
    ws_reader_init(r);
    ws_event_t e = feed(r, 0, &used);
    int code = e == WS_BROKEN ? r->error : 0;
    if (e == WS_BROKEN) {
        assert_int_equal(ws_reader_feed(r, wire, 1, &used), WS_BROKEN); /* it takes no more */
    }
    ws_reader_free(r);
    free(r);
    wire_len = 0;
    return code;
}

static void any_cut_gives_the_same_messages(void **state) {
    ws_reader_t *r = malloc(sizeof *r);
    (void)state;
    text("{\"type\":\"ping\"}");
    put(0x01, "frag", 4, 4, 1);
    put(0x89, "beat", 4, 4, 1); /* a ping between two fragments */
    put(0x80, "ments", 5, 5, 1);
    text("");
    put(0x88, "\x03\xe8", 2, 2, 1);
    for (size_t step = 1; step <= wire_len; step++) {
        static const ws_event_t wanted[] = {WS_TEXT, WS_PING, WS_TEXT, WS_TEXT, WS_CLOSE};
        static const char *const payloads[] = {"{\"type\":\"ping\"}", "beat", "fragments", "", "\x03\xe8"};
        size_t seen = 0;
        ws_reader_init(r);
        for (size_t at = 0; at < wire_len;) {
            size_t n = wire_len - at < step ? wire_len - at : step;
            for (size_t done = 0; done < n;) {
                size_t used = 0;
                ws_event_t e = ws_reader_feed(r, wire + at + done, n - done, &used);
                done += used;
                if (e == WS_MORE) {
                    continue;
                }
                assert_true(seen < 5);
                assert_int_equal(e, wanted[seen]);
                if (e == WS_TEXT) {
                    assert_string_equal(r->message, payloads[seen]);
                    ws_reader_free(r);
                    assert_null(r->message); /* nothing is held between messages */
                } else {
                    assert_memory_equal(r->control, payloads[seen], r->control_len);
                }
                seen++;
            }
            at += n;
        }
        assert_int_equal(seen, 5);
        assert_null(r->message);
    }
    wire_len = 0;
    free(r);
}

static void bounds_hold_before_anything_is_stored(void **state) {
    static char big[WS_MESSAGE_MAX + 1];
    (void)state;
    memset(big, 'x', sizeof big);
    put(0x81, big, WS_MESSAGE_MAX, WS_MESSAGE_MAX, 1);
    assert_int_equal(error_of(), 0);
    put(0x81, big, WS_MESSAGE_MAX + 1, 0, 1);
    wire_len -= 4; /* the length alone is enough to refuse */
    assert_int_equal(error_of(), WS_CLOSE_TOO_BIG);
    put(0x81, NULL, UINT64_MAX, 0, 1);
    assert_int_equal(error_of(), WS_CLOSE_TOO_BIG);
    put(0x01, big, 4000, 4000, 1); /* two fragments of which the second is too much */
    put(0x80, big, 97, 97, 1);
    assert_int_equal(error_of(), WS_CLOSE_TOO_BIG);
    put(0x89, big, 126, 126, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL);
}

static void what_the_protocol_forbids_is_refused(void **state) {
    (void)state;
    put(0x81, "x", 1, 1, 0);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL); /* not masked */
    put(0xc1, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL); /* a reserved bit */
    put(0x82, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_UNSUPPORTED);
    put(0x83, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL);
    put(0x8b, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL);
    put(0x09, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL); /* a control frame in pieces */
    put(0x80, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL); /* continues nothing */
    put(0x01, "x", 1, 1, 1);
    put(0x81, "x", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_PROTOCOL); /* starts in the middle of another */
    put(0x81, "\xff", 1, 1, 1);
    assert_int_equal(error_of(), WS_CLOSE_NOT_UTF8);
}

static void noise_never_breaks_it(void **state) {
    ws_reader_t *r = malloc(sizeof *r);
    uint32_t seed = 12345;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        unsigned char data[64];
        size_t at = 0;
        ws_reader_init(r);
        for (size_t i = 0; i < sizeof data; i++) {
            seed = seed * 1664525U + 1013904223U;
            data[i] = (unsigned char)(seed >> 24);
        }
        data[0] = (unsigned char)(data[0] & 0x8f); /* let it come further than the reserved bits */
        data[1] |= 0x80;
        while (at < sizeof data) {
            size_t used = 0;
            if (ws_reader_feed(r, data + at, sizeof data - at, &used) == WS_BROKEN) {
                break;
            }
            at += used;
            assert_true(r->message_len <= WS_MESSAGE_MAX && r->control_len <= WS_CONTROL_MAX);
        }
        ws_reader_free(r);
    }
    free(r);
}

static void headers_of_all_lengths(void **state) {
    unsigned char h[WS_HEADER_MAX];
    (void)state;
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 125), 2);
    assert_memory_equal(h, "\x81\x7d", 2);
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 126), 4);
    assert_memory_equal(h, "\x81\x7e\x00\x7e", 4);
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 65535), 4);
    assert_memory_equal(h, "\x81\x7e\xff\xff", 4);
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 65536), 10);
    assert_memory_equal(h, "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
}

static void accept_key_of_the_rfc(void **state) {
    char out[32];
    (void)state;
    assert_true(ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", out)); /* RFC 6455, section 1.3 */
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_false(ws_accept_key("", out));
    assert_false(ws_accept_key("dGhlIHNhbXBsZSBub25jZQ=", out));
    assert_false(ws_accept_key("dGhlIHNhbXBsZSBub25jZQAA", out));
    assert_false(ws_accept_key("!!!!!!!!!!!!!!!!!!!!!!==", out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut_gives_the_same_messages),
        cmocka_unit_test(bounds_hold_before_anything_is_stored),
        cmocka_unit_test(what_the_protocol_forbids_is_refused),
        cmocka_unit_test(noise_never_breaks_it),
        cmocka_unit_test(headers_of_all_lengths),
        cmocka_unit_test(accept_key_of_the_rfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
