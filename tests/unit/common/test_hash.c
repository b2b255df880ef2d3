/* Digests against published vectors, text codings there and back, tokens. */
#include "common/hash.h"

#include <string.h>

#include "tests/unit/support/cmocka_all.h"

static void test_sha256_vectors(void **state) {
    (void)state;
    /* FIPS 180-4 examples */
    static const struct {
        const char *text, *hex;
    } rows[] = {{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
                {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t digest[HASH_SHA256_SIZE];
        char hex[HASH_SHA256_HEX_SIZE];
        assert_true(hash_sha256(rows[i].text, strlen(rows[i].text), digest));
        hash_hex_encode(digest, sizeof digest, hex);
        assert_string_equal(hex, rows[i].hex);
        hash_t *h = hash_sha256_begin();
        assert_non_null(h);
        for (const char *p = rows[i].text; *p; p++) { /* one byte at a time */
            assert_true(hash_update(h, p, 1));
        }
        uint8_t streamed[HASH_SHA256_SIZE];
        assert_true(hash_sha256_end(h, streamed));
        assert_memory_equal(streamed, digest, sizeof digest);
    }
    hash_abort(hash_sha256_begin());
    hash_abort(NULL);
}

static void test_sha1_vector(void **state) {
    (void)state;
    char hex[HASH_SHA1_HEX_SIZE];
    assert_true(hash_sha1_hex("abc", 3, hex));
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
}

static void test_hex(void **state) {
    (void)state;
    uint8_t bytes[3] = {0};
    assert_true(hash_hex_decode("00fFa5", bytes, 3));
    assert_int_equal(bytes[1], 0xFF);
    assert_int_equal(bytes[2], 0xA5);
    char out[7];
    hash_hex_encode(bytes, 3, out);
    assert_string_equal(out, "00ffa5");
    assert_false(hash_hex_decode("00ff", bytes, 3));
    assert_false(hash_hex_decode("00ffa50", bytes, 3));
    assert_false(hash_hex_decode("00ffg5", bytes, 3));
}

static void test_base64url(void **state) {
    (void)state;
    /* RFC 4648 section 10, in the URL-safe alphabet and without padding */
    static const char *const rows[][2] = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},         {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
    char text[32];
    char back[32];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(rows[i][0]);
        hash_base64url_encode(rows[i][0], n, text);
        assert_string_equal(text, rows[i][1]);
        assert_int_equal(strlen(text) + 1, hash_base64url_size(n));
        assert_int_equal(hash_base64url_decode(text, back, sizeof back), n);
        assert_memory_equal(back, rows[i][0], n);
    }
    hash_base64url_encode("\xFB\xFF", 2, text);
    assert_string_equal(text, "-_8");
    static const char *const wrong[] = {"A", "Zh", "Zm9", "Zg==", "Z g", "Zm+v", "Zm9vY"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(hash_base64url_decode(wrong[i], back, sizeof back), -1);
    }
    assert_int_equal(hash_base64url_decode("Zm9v", back, 2), -1);
}

static void test_equal(void **state) {
    (void)state;
    assert_true(hash_equal("same", "same", 4));
    assert_false(hash_equal("same", "sami", 4));
    assert_true(hash_equal("a", "b", 0));
}

static void test_tokens_differ(void **state) {
    (void)state;
    char a[44];
    char b[44];
    assert_int_equal(hash_base64url_size(32), 44);
    hash_random_token(a, 32);
    hash_random_token(b, 32);
    assert_int_equal(strlen(a), 43);
    assert_string_not_equal(a, b);
    assert_int_equal(strspn(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_vectors), cmocka_unit_test(test_sha1_vector), cmocka_unit_test(test_hex),
        cmocka_unit_test(test_base64url),      cmocka_unit_test(test_equal),       cmocka_unit_test(test_tokens_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
