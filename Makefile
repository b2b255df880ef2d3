# Spheroseg. `make` builds build/gateway and build/segworker; `make help` lists the rest.
## make                build/gateway and build/segworker
## make ui             the browser UI, in build/ui
## make quickstart     scripts/quickstart.sh: everything on this computer, with one command
## make test           scripts/test.sh: every test
#
# BUILD=dir      another build folder
# SAN=address,undefined | thread   instrument everything (use with its own BUILD)
# TORCH_DIR=dir  a libtorch other than the system's (holds include/ and lib/)

BUILD ?= build
CC ?= gcc
CXX ?= g++
PKG_CONFIG ?= pkg-config
PYTHON ?= /usr/bin/python3

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

WARN := -Wall -Wextra -Werror -Wshadow -Wvla -Wpointer-arith -Wformat=2 -Wundef
CWARN := -Wstrict-prototypes -Wmissing-prototypes
OPT ?= -O2 -g
COMMON_FLAGS := $(OPT) $(WARN) -D_GNU_SOURCE -DSG_VERSION='"$(VERSION)"' -fstack-protector-strong -fPIE -pthread \
                -I. -I$(BUILD)/gen
ifneq ($(SAN),)
COMMON_FLAGS += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
else
COMMON_FLAGS += -D_FORTIFY_SOURCE=2
endif
LDFLAGS += -pie -pthread -Wl,-z,relro,-z,now

PQ_CFLAGS := $(shell $(PKG_CONFIG) --cflags libpq 2>/dev/null || echo -I/usr/include/postgresql)
CFLAGS += -std=c17 $(COMMON_FLAGS) $(CWARN) $(PQ_CFLAGS)

TORCH_DIR ?= /usr
TORCH_INC := $(TORCH_DIR)/include
# /usr/include must not be named again: the C++ headers then miss stdlib.h (#include_next).
CXXFLAGS += -std=c++17 $(COMMON_FLAGS) $(if $(filter /usr/include,$(TORCH_INC)),,-isystem $(TORCH_INC)) \
            -isystem $(TORCH_INC)/torch/csrc/api/include
TORCH_LIBS ?= -L$(TORCH_DIR)/lib -ltorch -ltorch_cpu -lc10

COMMON_LIBS := -lpq -lcurl -lhiredis -lcjson -lexpat -ltiff -ljpeg -lpng -lwebp -lgif -lssl -lcrypto -lm
GATEWAY_LIBS := -lcivetweb -largon2 -ljwt $(COMMON_LIBS)
SEGWORKER_LIBS := $(TORCH_LIBS) $(COMMON_LIBS) -lyaml -lstdc++

COMMON_SRC := $(sort $(shell find common -name '*.c'))
GATEWAY_SRC := $(sort $(shell find gateway -name '*.c' -not -path 'gateway/ui/*'))
SEGWORKER_SRC := $(sort $(shell find segworker -name '*.c'))
SHIM_SRC := $(wildcard segworker/torch_shim.cc)
LUA_SRC := $(sort $(wildcard proto/lua/*.lua))

obj = $(patsubst %,$(BUILD)/obj/%.o,$(1))
COMMON_OBJ := $(call obj,$(COMMON_SRC)) $(BUILD)/gen/lua_scripts.o
GATEWAY_OBJ := $(call obj,$(GATEWAY_SRC))
SEGWORKER_OBJ := $(call obj,$(SEGWORKER_SRC) $(SHIM_SRC))

.PHONY: all gateway segworker ui clean help
all: $(BUILD)/gateway $(BUILD)/segworker
gateway: $(BUILD)/gateway
segworker: $(BUILD)/segworker

$(BUILD)/libcommon.a: $(COMMON_OBJ)
	@rm -f $@
	ar rcs $@ $^

# civetweb looks this up by name: see gateway/civetweb_tls.c
$(BUILD)/gateway: LDFLAGS += -Wl,--export-dynamic-symbol=SSL_get_peer_certificate
$(BUILD)/gateway: $(GATEWAY_OBJ) $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $(GATEWAY_OBJ) $(BUILD)/libcommon.a $(GATEWAY_LIBS)

$(BUILD)/segworker: $(SEGWORKER_OBJ) $(BUILD)/libcommon.a
	$(CXX) $(LDFLAGS) -o $@ $(SEGWORKER_OBJ) $(BUILD)/libcommon.a $(SEGWORKER_LIBS)

$(BUILD)/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

# The Lua scripts are part of the binaries, so that code and scripts cannot drift apart.
$(BUILD)/gen/lua_scripts.c: $(LUA_SRC) proto/lua/embed.sh
	@mkdir -p $(@D)
	sh proto/lua/embed.sh $(LUA_SRC) > $@
$(BUILD)/gen/lua_scripts.o: $(BUILD)/gen/lua_scripts.c
	$(CC) $(CFLAGS) -c -o $@ $<

# The browser UI. A failed build leaves no stamp, so the next make tries again.
UI_SRC := $(shell find gateway/ui -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
ui: $(BUILD)/ui.stamp
$(BUILD)/ui.stamp: $(UI_SRC) | $(BUILD)/ui-modules.stamp
	cd gateway/ui && UI_OUT=$(abspath $(BUILD))/ui npm run --silent build
	@touch $@
$(BUILD)/ui-modules.stamp: gateway/ui/package-lock.json
	@mkdir -p $(@D)
	cd gateway/ui && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

include tests/tests.mk

## make install        binaries, UI, models and migrations below $(DESTDIR)$(PREFIX)
PREFIX ?= /usr/local
SHARE := $(DESTDIR)$(PREFIX)/share/spheroseg
.PHONY: install quickstart test
install: all ui
	install -D -m 755 $(BUILD)/gateway $(DESTDIR)$(PREFIX)/bin/spheroseg-gateway
	install -D -m 755 $(BUILD)/segworker $(DESTDIR)$(PREFIX)/bin/segworker
	mkdir -p $(SHARE)/ui $(SHARE)/models $(SHARE)/sql
	cp -r $(BUILD)/ui/. $(SHARE)/ui/
	cp -r segworker/models/. $(SHARE)/models/
	cp proto/sql/*.sql $(SHARE)/sql/
quickstart:
	scripts/quickstart.sh
test:
	scripts/test.sh

clean:
	rm -rf $(BUILD)

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
