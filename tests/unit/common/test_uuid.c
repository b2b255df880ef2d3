/* UUIDs: form, version, variant, no repetition. */
#include "common/uuid.h"

#include <stdlib.h>
#include <string.h>

#include "common/pg.h"
#include "tests/unit/support/cmocka_all.h"

static int by_text(const void *a, const void *b) {
    return strcmp(a, b);
}

static void test_form_and_uniqueness(void **state) {
    (void)state;
    enum { MANY = 5000 };
    static char ids[MANY][UUID_SIZE];
    unsigned char seen_or[UUID_SIZE] = {0};
    for (int i = 0; i < MANY; i++) {
        uuid_v4(ids[i]);
        assert_true(pg_is_uuid(ids[i]));
        assert_int_equal(ids[i][14], '4');
        assert_non_null(strchr("89ab", ids[i][19]));
        for (int k = 0; k < 36; k++) {
            seen_or[k] |= (unsigned char)(ids[i][k] ^ ids[0][k]);
        }
    }
    for (int k = 0; k < 36; k++) { /* every free digit varies */
        bool fixed = k == 8 || k == 13 || k == 18 || k == 23 || k == 14;
        assert_int_equal(seen_or[k] != 0, !fixed);
    }
    qsort(ids, MANY, sizeof ids[0], by_text);
    for (int i = 1; i < MANY; i++) {
        assert_string_not_equal(ids[i - 1], ids[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_form_and_uniqueness)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
