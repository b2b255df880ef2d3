/* cmocka wants these four headers before its own, in this order. */
#ifndef SG_CMOCKA_ALL_H
#define SG_CMOCKA_ALL_H

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#endif
