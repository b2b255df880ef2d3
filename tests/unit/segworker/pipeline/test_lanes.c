/* Lanes: tiles of several runs side by side, each with its own result; batches of one shape; tasks that are taken back;
 * and the ladder that a network without memory goes down: batch, tile, CPU. The networks are plain C. */
#include "tests/unit/support/cmocka_all.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "common/timeutil.h"
#include "segworker/pipeline/lanes.h"

enum { SIDE = 64, PX = SIDE * SIDE, PATIENCE_MS = 30000 };

typedef struct {
    const char *device;
    size_t most_px; /* of a call; more is out of memory */
    atomic_int runs, batches, largest, at_once, most_at_once;
    atomic_bool hold;
} net_state_t;

static net_state_t spare; /* what loading on the CPU gives */

static err_kind_t fake_load(const model_spec_t *spec, const char *device, void **state, err_t *err) {
    (void)spec;
    (void)err;
    assert_string_equal(device, "cpu");
    *state = &spare;
    return ERR_OK;
}

/* Each value plus one, so that a tile in parts is the same as the whole. */
static err_kind_t fake_many(void *state, const float *in, int n, int h, int w, float *out, int channels, err_t *err) {
    net_state_t *s = state;
    size_t px = (size_t)n * (size_t)h * (size_t)w;
    assert_int_equal(channels, 1);
    int now = ++s->at_once;
    s->most_at_once = now > s->most_at_once ? now : s->most_at_once;
    s->runs++;
    s->batches += n > 1;
    s->largest = n > s->largest ? n : s->largest;
    for (int64_t until = time_mono_ms() + PATIENCE_MS; s->hold && time_mono_ms() < until;) {
        time_sleep_ms(1);
    }
    s->at_once--;
    if (s->most_px && px > s->most_px) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory.", NULL);
    }
    for (size_t i = 0; i < px; i++) {
        out[i] = in[i] + 1;
    }
    return ERR_OK;
}

static err_kind_t fake_run(void *state, const float *in, int h, int w, float *out, int channels, const cancel_t *stop,
                           err_t *err) {
    (void)stop;
    return fake_many(state, in, 1, h, w, out, channels, err);
}

static const char *fake_device(void *state) {
    const net_state_t *s = state;
    return s->device ? s->device : "cpu";
}

static const infer_backend_t FAKE = {.name = "fake",
                                     .load = fake_load,
                                     .run = fake_run,
                                     .run_many = fake_many,
                                     .device = fake_device,
                                     .computes = true,
                                     .concurrent = true};

static infer_t net_of(net_state_t *s) {
    return (infer_t){.backend = &FAKE,
                     .state = s,
                     .inputs = 1,
                     .grid = 1,
                     .halo = 4,
                     .divisor = 8,
                     .divisible = true,
                     .batch_limit = INFER_MOST_BATCH};
}

typedef struct {
    lane_task_t task;
    float in[PX], out[PX];
} tile_t;

static tile_t *make_tiles(infer_t *net, int n) {
    tile_t *t = calloc((size_t)n, sizeof *t);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < PX; k++) {
            t[i].in[k] = (float)(i * 1000 + k % 997);
        }
        t[i].task = (lane_task_t){
            .net = net, .input = t[i].in, .output = t[i].out, .h = SIDE, .w = SIDE, .channels = 1, .more = 1};
    }
    return t;
}

static void assert_done(const tile_t *t) {
    for (int k = 0; k < PX; k++) {
        assert_true(t->out[k] == t->in[k] + 1);
    }
}

static double steps(const char *step) {
    buf_t b;
    char line[128];
    buf_init(&b, 1 << 20);
    metrics_render(&b);
    (void)snprintf(line, sizeof line, "spheroseg_inference_memory_steps_total{step=\"%s\"} ", step);
    const char *found = strstr(b.data, line);
    double v = found ? strtod(found + strlen(line), NULL) : -1;
    buf_free(&b);
    return v;
}

static void wait_until_running(const net_state_t *s, int n) {
    for (int64_t until = time_mono_ms() + PATIENCE_MS; s->at_once < n && time_mono_ms() < until;) {
        time_sleep_ms(1);
    }
    assert_int_equal(s->at_once, n);
}

typedef struct {
    lanes_t *l;
    infer_t *net;
} client_t;

static void *be_client(void *arg) {
    client_t *c = arg;
    tile_t *t = make_tiles(c->net, 3);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 3; i++) {
            lanes_submit(c->l, &t[i].task);
        }
        for (int i = 0; i < 3; i++) {
            err_t err;
            assert_int_equal(lanes_wait(c->l, &t[i].task, NULL, &err), ERR_OK);
            assert_done(&t[i]);
        }
    }
    free(t);
    return NULL;
}

static void many_runs_share_the_lanes(void **state) {
    (void)state;
    net_state_t s = {0};
    infer_t net = net_of(&s);
    client_t c = {.net = &net};
    pthread_t threads[4];
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 3});
    assert_int_equal(lanes_open("cpu", &c.l, &err), ERR_OK);
    assert_int_equal(lanes_depth(c.l), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, be_client, &c), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(s.runs, 4 * 20 * 3);
    assert_true(s.most_at_once <= 3 && s.batches == 0);
    lanes_close(c.l);
}

static void a_device_has_its_lanes_once(void **state) {
    (void)state;
    lanes_t *a = NULL, *b = NULL, *other = NULL;
    int lanes = 0, each = 0;
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 4, .lanes = 2});
    assert_int_equal(lanes_open("cpu", &a, &err), ERR_OK);
    assert_int_equal(lanes_open("cpu", &b, &err), ERR_OK);
    assert_int_equal(lanes_open("cuda:0", &other, &err), ERR_OK);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, other);
    lanes_shape(a, &lanes, &each);
    assert_true(lanes == 2 && each == 2);
    lanes_shape(other, &lanes, &each);
    assert_int_equal(lanes, 1);
    lanes_close(a);
    lanes_close(other);
    lanes_close(b);
    lanes_close(NULL);
}

/* A network that runs one call at a time, however many lanes there are, gains nothing by several; one that only waits
 * gains all. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static atomic_int threads_now;

static void note_threads(int threads) {
    threads_now = threads;
}

static err_kind_t run_slowly(void *state, const float *in, int h, int w, float *out, int channels, const cancel_t *stop,
                             err_t *err) {
    (void)stop;
    (void)pthread_mutex_lock(&one_at_a_time);
    time_sleep_ms(threads_now > 1 ? 10 : 40); /* threads help more than four times */
    (void)pthread_mutex_unlock(&one_at_a_time);
    return fake_many(state, in, 1, h, w, out, channels, err);
}

static err_kind_t run_waiting(void *state, const float *in, int h, int w, float *out, int channels,
                              const cancel_t *stop, err_t *err) {
    (void)stop;
    time_sleep_ms(40);
    return fake_many(state, in, 1, h, w, out, channels, err);
}

static int tuned(err_kind_t (*run)(void *, const float *, int, int, float *, int, const cancel_t *, err_t *),
                 const lanes_setup_t *setup) {
    net_state_t s = {0};
    infer_t net = net_of(&s);
    infer_backend_t backend = FAKE;
    lanes_t *l = NULL;
    int lanes = 0, each = 0;
    err_t err;
    backend.run = run;
    backend.set_threads = note_threads;
    net.backend = &backend;
    lanes_set_up(setup);
    assert_int_equal(lanes_open("cpu", &l, &err), ERR_OK);
    lanes_tune(l, &net, 1, 16, 1);
    lanes_shape(l, &lanes, &each);
    tile_t *t = make_tiles(&net, 3);
    for (int i = 0; i < 3; i++) {
        lanes_submit(l, &t[i].task);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lanes_wait(l, &t[i].task, NULL, &err), ERR_OK);
        assert_done(&t[i]);
    }
    lanes_close(l);
    free(t);
    return lanes;
}

static void as_many_lanes_as_pay(void **state) {
    (void)state;
    assert_int_equal(tuned(run_slowly, &(lanes_setup_t){.threads = 2}), 1);
    assert_int_equal(tuned(run_waiting, &(lanes_setup_t){.threads = 2}), 2);
    assert_int_equal(tuned(run_slowly, &(lanes_setup_t){.threads = 2, .lanes = 2}), 2); /* as it was set */
}

static void what_knows_no_threads_takes_one(void **state) {
    (void)state;
    net_state_t s = {.hold = true};
    infer_t net = net_of(&s);
    lanes_t *l = NULL;
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 2});
    assert_int_equal(lanes_open("cpu", &l, &err), ERR_OK);
    tile_t *t = make_tiles(&net, 2);
    t[0].task.more = t[1].task.more = 0; /* each is the last of its image */
    lanes_submit(l, &t[0].task);
    wait_until_running(&s, 1);
    lanes_submit(l, &t[1].task);
    wait_until_running(&s, 2); /* the first left a core free */
    s.hold = false;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lanes_wait(l, &t[i].task, NULL, &err), ERR_OK);
        assert_done(&t[i]);
    }
    lanes_close(l);
    free(t);
}

static void alike_tiles_are_put_together(void **state) {
    (void)state;
    net_state_t s = {.hold = true};
    infer_t net = net_of(&s);
    lanes_t *l = NULL;
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 1, .batch = 4});
    assert_int_equal(lanes_open("cpu", &l, &err), ERR_OK);
    tile_t *t = make_tiles(&net, 8);
    t[3].task.h = SIDE / 2; /* of another shape */
    t[3].task.w = SIDE * 2;
    lanes_submit(l, &t[0].task);
    wait_until_running(&s, 1);
    for (int i = 1; i < 8; i++) {
        lanes_submit(l, &t[i].task);
    }
    s.hold = false;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(lanes_wait(l, &t[i].task, NULL, &err), ERR_OK);
        assert_done(&t[i]);
    }
    assert_int_equal(s.largest, 4); /* 0 | 1 2 4 5 | 3 | 6 7 */
    assert_int_equal(s.runs, 4);
    lanes_close(l);
    free(t);
}

static bool always(void *ctx) {
    (void)ctx;
    return true;
}

static void a_waiting_tile_can_be_taken_back(void **state) {
    (void)state;
    const cancel_t stop = {.fn = always};
    net_state_t s = {.hold = true};
    infer_t net = net_of(&s);
    lanes_t *l = NULL;
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 1});
    assert_int_equal(lanes_open("cpu", &l, &err), ERR_OK);
    tile_t *t = make_tiles(&net, 4);
    for (int i = 0; i < 4; i++) {
        lanes_submit(l, &t[i].task);
    }
    wait_until_running(&s, 1);
    assert_int_equal(lanes_wait(l, &t[2].task, &stop, &err), ERR_CANCELLED); /* although the first one hangs */
    lanes_drop(l, &t[3].task);
    lanes_drop(l, &t[3].task); /* once more is harmless */
    s.hold = false;
    assert_int_equal(lanes_wait(l, &t[0].task, NULL, &err), ERR_OK);
    assert_int_equal(lanes_wait(l, &t[1].task, NULL, &err), ERR_OK);
    assert_int_equal(s.runs, 2);
    lanes_close(l);
    free(t);
}

static void run_all(lanes_t *l, tile_t *t, int n) {
    err_t err;
    for (int i = 0; i < n; i++) {
        lanes_submit(l, &t[i].task);
    }
    for (int i = 0; i < n; i++) {
        if (lanes_wait(l, &t[i].task, NULL, &err) != ERR_OK) {
            fail_msg("%s", err.message);
        }
        assert_done(&t[i]);
    }
}

static void without_memory_batches_shrink(void **state) {
    (void)state;
    net_state_t s = {.most_px = 2 * PX};
    infer_t net = net_of(&s);
    lanes_t *l = NULL;
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 1, .batch = 8, .batch_wait_ms = 200});
    assert_int_equal(lanes_open("cpu", &l, &err), ERR_OK);
    double before = steps("batch");
    tile_t *t = make_tiles(&net, 8);
    run_all(l, t, 8);
    assert_true(steps("batch") > before || s.largest <= 2); /* the lane may have been faster than we */
    assert_true(net.batch_limit >= 2);
    lanes_close(l);
    free(t);
}

static void without_memory_tiles_are_cut(void **state) {
    (void)state;
    net_state_t s = {.most_px = 24 * 24};
    infer_t net = net_of(&s);
    lanes_t *l = NULL;
    err_t err;
    lanes_set_up(&(lanes_setup_t){.threads = 2});
    assert_int_equal(lanes_open("cpu", &l, &err), ERR_OK);
    double cuts = steps("tile"), alone = steps("alone");
    tile_t *t = make_tiles(&net, 2);
    run_all(l, t, 2); /* both at once ask to be alone */
    assert_true(steps("alone") >= alone + 2);
    assert_true(steps("tile") >= cuts + 4); /* 64 -> 40 -> 24 px, twice */
    assert_int_equal(steps("cpu"), 0);
    s.most_px = 10; /* nothing helps */
    lanes_submit(l, &t[0].task);
    assert_int_equal(lanes_wait(l, &t[0].task, NULL, &err), ERR_NO_MEMORY);
    assert_string_equal(err.code, "out_of_memory");
    net.divisible = false; /* labels */
    s.most_px = PX - 1;
    int runs = s.runs;
    lanes_submit(l, &t[0].task);
    assert_int_equal(lanes_wait(l, &t[0].task, NULL, &err), ERR_NO_MEMORY);
    assert_int_equal(s.runs, runs + 2);
    lanes_close(l);
    free(t);
}

static void an_accelerator_falls_back_to_the_cpu(void **state) {
    (void)state;
    net_state_t s = {.device = "cuda:0", .most_px = 10};
    infer_t net = net_of(&s);
    lanes_t *l = NULL;
    err_t err;
    lanes_set_up(&(lanes_setup_t){0});
    assert_int_equal(lanes_open("cuda:0", &l, &err), ERR_OK);
    double before = steps("cpu");
    tile_t *t = make_tiles(&net, 2);
    run_all(l, t, 2);
    assert_int_equal(steps("cpu"), before + 2);
    assert_int_equal(spare.runs, 2);
    assert_ptr_equal(net.on_cpu, &spare);
    lanes_close(l);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_runs_share_the_lanes),
        cmocka_unit_test(a_device_has_its_lanes_once),
        cmocka_unit_test(as_many_lanes_as_pay),
        cmocka_unit_test(what_knows_no_threads_takes_one),
        cmocka_unit_test(alike_tiles_are_put_together),
        cmocka_unit_test(a_waiting_tile_can_be_taken_back),
        cmocka_unit_test(without_memory_batches_shrink),
        cmocka_unit_test(without_memory_tiles_are_cut),
        cmocka_unit_test(an_accelerator_falls_back_to_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
