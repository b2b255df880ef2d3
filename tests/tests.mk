# Unit tests: tests/unit/**/test_*.c, one program each, against the same objects as the daemons (less main).
# tests/unit/segworker needs libtorch only if the test links the shim: programs there link everything.

UNIT_SRC := $(sort $(shell find tests/unit -name 'test_*.c'))
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
GATEWAY_TEST_OBJ := $(filter-out $(call obj,gateway/main.c),$(GATEWAY_OBJ))
SEGWORKER_TEST_OBJ := $(filter-out $(call obj,segworker/main.c),$(SEGWORKER_OBJ))
UNIT_SUPPORT_OBJ := $(call obj,$(sort $(wildcard tests/unit/support/*.c)))

$(BUILD)/unit/common/%: $(BUILD)/obj/tests/unit/common/%.c.o $(UNIT_SUPPORT_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(UNIT_SUPPORT_OBJ) $(BUILD)/libcommon.a -lcmocka $(COMMON_LIBS)
$(BUILD)/unit/gateway/%: $(BUILD)/obj/tests/unit/gateway/%.c.o $(GATEWAY_TEST_OBJ) $(UNIT_SUPPORT_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(GATEWAY_TEST_OBJ) $(UNIT_SUPPORT_OBJ) $(BUILD)/libcommon.a -lcmocka $(GATEWAY_LIBS)
$(BUILD)/unit/segworker/%: $(BUILD)/obj/tests/unit/segworker/%.c.o $(SEGWORKER_TEST_OBJ) $(UNIT_SUPPORT_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -o $@ $< $(SEGWORKER_TEST_OBJ) $(UNIT_SUPPORT_OBJ) $(BUILD)/libcommon.a -lcmocka $(SEGWORKER_LIBS)

.PHONY: unit
.SECONDARY:
## make unit           build and run the unit tests
unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do echo "== $$t"; $$t; done

## make unit-programs  build the unit tests without running them
.PHONY: unit-programs integration e2e lint tidy cppcheck fuzz
unit-programs: $(UNIT_BIN)

## make integration    both daemons against real PostgreSQL and Redis
integration: all
	SPHEROSEG_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -q -p no:cacheprovider tests/integration

## make e2e            the browser journey in Chromium
e2e: all ui
	SPHEROSEG_BUILD=$(abspath $(BUILD)) $(PYTHON) tests/e2e/run.py

## make lint           clang-tidy, cppcheck, shellcheck, tsc
lint: tidy cppcheck
	shellcheck -x scripts/*.sh scripts/lib/*.sh k8s/*.sh compose/*/*.sh tests/ops/*.sh tests/ops/images/*/*.sh .ci/run
	shellcheck -e SC2030,SC2031,SC2016,SC2012 tests/ops/bats/*.bats
	cd gateway/ui && npm run --silent typecheck

TIDY_SRC := $(COMMON_SRC) $(GATEWAY_SRC) $(SEGWORKER_SRC)
TIDY_STAMPS := $(patsubst %,$(BUILD)/tidy/%.ok,$(TIDY_SRC))
tidy: $(TIDY_STAMPS)
$(BUILD)/tidy/%.ok: %
	@mkdir -p $(@D)
	clang-tidy --quiet $< -- -std=c17 -D_GNU_SOURCE -DSG_VERSION='"lint"' -I. -I$(BUILD)/gen $(PQ_CFLAGS) 2>/dev/null
	@touch $@
cppcheck:
	cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	  --suppress=missingIncludeSystem --suppress=varFuncNullUB -D_GNU_SOURCE -DSG_VERSION='"lint"' -I. $(COMMON_SRC) $(GATEWAY_SRC) $(SEGWORKER_SRC)

# Fuzz targets: tests/fuzz/fuzz_*.c, each with LLVMFuzzerTestOneInput. Built with clang's libFuzzer, ASan and UBSan.
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -std=c17 -g -O1 -D_GNU_SOURCE -DSG_VERSION='"fuzz"' -I. -I$(BUILD)/gen $(PQ_CFLAGS) -fno-sanitize-recover=all
FUZZ_OBJ := $(patsubst %,$(BUILD)/fuzz-obj/%.o,$(COMMON_SRC)) $(BUILD)/fuzz-obj/lua_scripts.o
$(BUILD)/fuzz-obj/%.c.o: %.c
	@mkdir -p $(@D)
	clang $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c -o $@ $<
$(BUILD)/fuzz-obj/lua_scripts.o: $(BUILD)/gen/lua_scripts.c
	@mkdir -p $(@D)
	clang $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<
$(BUILD)/fuzz-obj/libcommon.a: $(FUZZ_OBJ)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/fuzz/%: tests/fuzz/%.c $(BUILD)/fuzz-obj/libcommon.a $(GATEWAY_SRC) $(SEGWORKER_SRC)
	@mkdir -p $(@D)
	clang $(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined -o $@ $< $(EXTRA_FUZZ_SRC) $(BUILD)/fuzz-obj/libcommon.a $(COMMON_LIBS)
$(BUILD)/fuzz/fuzz_ws_frame: EXTRA_FUZZ_SRC := gateway/ws_frame.c
$(BUILD)/fuzz/fuzz_proxy: EXTRA_FUZZ_SRC := gateway/proxy.c
$(BUILD)/fuzz/fuzz_request: EXTRA_FUZZ_SRC := $(addprefix gateway/,http.c http_reply.c idempotency.c proxy.c routes/route_util.c \
  routes/submit.c routes/submit_bounds.c routes/submit_plane.c)
$(BUILD)/fuzz/fuzz_model_manifest: EXTRA_FUZZ_SRC := segworker/models.c segworker/model_net.c segworker/bioimage.c \
  segworker/yaml_tree.c $(wildcard segworker/classical/*.c) segworker/pipeline/smooth.c segworker/pipeline/components.c -lyaml
$(BUILD)/fuzz/fuzz_multipart: EXTRA_FUZZ_SRC := $(wildcard gateway/multipart.c)
$(BUILD)/fuzz/fuzz_names: EXTRA_FUZZ_SRC := gateway/names.c
$(BUILD)/fuzz/fuzz_contour: EXTRA_FUZZ_SRC := $(addprefix segworker/pipeline/,contour.c crack.c corner.c outline.c \
  outline_smooth.c outline_simplify.c)
-include $(shell find $(BUILD)/fuzz-obj -name '*.d' 2>/dev/null)
## make fuzz           every fuzz target for FUZZ_SECONDS (60) each
fuzz: $(FUZZ_BIN)
	@set -e; for f in $(FUZZ_BIN); do mkdir -p $(BUILD)/corpus/$$(basename $$f); \
	  echo "== $$f"; $$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
	  $(BUILD)/corpus/$$(basename $$f) 2>&1 | tail -n 8; done

# Decoders compared with tifffile and Pillow: tests/formats.
$(BUILD)/formats/%: $(BUILD)/obj/tests/formats/%.c.o $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(BUILD)/libcommon.a $(COMMON_LIBS)
.PHONY: formats format-programs
format-programs: $(BUILD)/formats/image_dump
## make formats        the image decoders against tifffile and Pillow, on made files and on ../shared/data if it is there
formats: format-programs
	SPHEROSEG_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -q -p no:cacheprovider tests/formats

# Benchmarks: tests/bench. They compare with npm packages that tests/bench/package-lock.json pins.
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/queue/%.c.o $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(BUILD)/libcommon.a $(COMMON_LIBS)
$(BUILD)/bench/ws_clients: tests/bench/websocket/ws_clients.c
	@mkdir -p $(@D)
	$(CC) -std=c17 $(COMMON_FLAGS) $(CWARN) $(LDFLAGS) -o $@ $< -lssl -lcrypto
$(BUILD)/bench/bench_post: $(BUILD)/obj/tests/bench/worker/bench_post.c.o $(SEGWORKER_TEST_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -o $@ $< $(SEGWORKER_TEST_OBJ) $(BUILD)/libcommon.a $(SEGWORKER_LIBS)
.PHONY: bench bench-programs bench-queue bench-submit bench-websocket bench-worker bench-scale
BENCH_ENV = SPHEROSEG_BUILD=$(abspath $(BUILD))
BENCH_ARGS ?=
bench-programs: $(BUILD)/bench/bench_queue $(BUILD)/bench/ws_clients $(BUILD)/bench/bench_post $(BUILD)/gateway $(BUILD)/segworker
## make bench          every benchmark (BENCH_ARGS=--quick: only that they run)
bench: bench-queue bench-submit bench-websocket bench-worker bench-scale
## make bench-queue    the job queue against BullMQ
bench-queue: bench-programs
	$(BENCH_ENV) $(PYTHON) tests/bench/queue/bench_queue.py $(BENCH_ARGS)
## make bench-submit   requests that make a job against an Express server
bench-submit: bench-programs
	$(BENCH_ENV) $(PYTHON) tests/bench/submit/bench_submit.py $(BENCH_ARGS)
## make bench-websocket  events to many WebSockets
bench-websocket: bench-programs
	$(BENCH_ENV) $(PYTHON) tests/bench/websocket/bench_websocket.py $(BENCH_ARGS)
## make bench-worker   post-processing and whole runs against PyTorch, scikit-image and OpenCV
bench-worker: bench-programs
	$(BENCH_ENV) $(PYTHON) tests/bench/worker/bench_worker.py $(BENCH_ARGS)

## make bench-scale    what one more worker costs: memory, connections, PostgreSQL and Redis
bench-scale: bench-programs
	$(BENCH_ENV) $(PYTHON) tests/bench/scale/bench_scale.py $(BENCH_ARGS)

# Chaos: real daemons, killed and cut off from each other at random. tests/chaos/chaos.py --help.
CHAOS_SECONDS ?= 600
.PHONY: chaos
## make chaos          kills, cuts, freezes and flushes for CHAOS_SECONDS (600); CHAOS_SEED repeats a choice
chaos: all
	SPHEROSEG_BUILD=$(abspath $(BUILD)) $(PYTHON) tests/chaos/chaos.py --seconds $(CHAOS_SECONDS) --real \
	  $(if $(CHAOS_SEED),--seed $(CHAOS_SEED))

# What operators do, on a real Docker engine: tests/ops. The images are built from the last commit, as "test".
.PHONY: test-ops ops-images
ops-images:
	tests/ops/base-images.sh
	$(PYTHON) -c 'import sys; sys.path.insert(0, "tests/ops"); import containers; containers.build_images("test")'
# Two files run beside each other, because most of the time is waiting (for an alert's end, for a deployment's watch);
# what they printed comes at the end.
## make test-ops       containers, deployments, alerts, certificates, secrets, backups: needs a Docker engine and root; 40 minutes
test-ops: ops-images
	bats tests/ops/bats
	PYTHONDONTWRITEBYTECODE=1 SPHEROSEG_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -v -rP -n 2 --dist loadfile --durations=20 \
	  -p no:cacheprovider tests/ops
