# Unit tests: tests/unit/**/test_*.c, one program each, against the same objects as the daemons (less main).
# tests/unit/segworker needs libtorch only if the test links the shim: programs there link everything.

UNIT_SRC := $(sort $(shell find tests/unit -name 'test_*.c'))
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
GATEWAY_TEST_OBJ := $(filter-out $(call obj,gateway/main.c),$(GATEWAY_OBJ))
SEGWORKER_TEST_OBJ := $(filter-out $(call obj,segworker/main.c),$(SEGWORKER_OBJ))

$(BUILD)/unit/common/%: $(BUILD)/obj/tests/unit/common/%.c.o $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(BUILD)/libcommon.a -lcmocka $(COMMON_LIBS)
$(BUILD)/unit/gateway/%: $(BUILD)/obj/tests/unit/gateway/%.c.o $(GATEWAY_TEST_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(GATEWAY_TEST_OBJ) $(BUILD)/libcommon.a -lcmocka $(GATEWAY_LIBS)
$(BUILD)/unit/segworker/%: $(BUILD)/obj/tests/unit/segworker/%.c.o $(SEGWORKER_TEST_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -o $@ $< $(SEGWORKER_TEST_OBJ) $(BUILD)/libcommon.a -lcmocka $(SEGWORKER_LIBS)

.PHONY: unit
.SECONDARY:
## make unit           build and run the unit tests
unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do echo "== $$t"; $$t; done
